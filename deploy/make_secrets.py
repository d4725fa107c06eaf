"""Make the secrets that deploy/compose.yaml mounts; what is there stays. Standard library only."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

FOLDER = Path(__file__).parent / "secrets"


def main(folder: Path = FOLDER) -> None:
    """Write what is absent. Containers run as users of their own, so a file may be read by all; the folder may not."""
    folder.mkdir(mode=0o711, exist_ok=True)
    key = secrets.token_hex(20)
    right = {"name": "adawise", "credentials": [{"accessKey": "adawise", "secretKey": key}], "actions": ["Admin"]}
    texts = {
        "http-token": secrets.token_hex(32),
        "grafana-password": secrets.token_hex(16),
        "s3.json": json.dumps({"identities": [right]}),
        "s3.env": f"AWS_ACCESS_KEY_ID=adawise\nAWS_SECRET_ACCESS_KEY={key}\n",
    }
    both = ("s3.json", "s3.env")
    if len(there := [name for name in both if (folder / name).exists()]) == 1:
        raise SystemExit(f"{folder}: expected both of {', '.join(both)} or neither, there is {there[0]}; remove it")
    for name, text in texts.items():
        if (folder / name).exists():
            print(f"kept {folder / name}")
        else:
            (folder / name).write_text(text)
            (folder / name).chmod(0o444)
            print(f"wrote {folder / name}")


if __name__ == "__main__":
    main()
