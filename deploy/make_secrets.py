"""Make the secrets that deploy/compose.yaml mounts; what is there stays. Standard library only."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

FOLDER = Path(__file__).parent / "secrets"
_OWNERS = 0o700  # only the owner enters the folder; Docker's daemon mounts its files one by one
_MOUNTED = 0o444  # a container's user is another one
_READ_BY_COMPOSE = 0o400  # env_file: by the command itself, as the owner


def main(folder: Path = FOLDER) -> None:
    """Write what is absent, and close the folder to other users of this machine, also one of an earlier version."""
    folder.mkdir(mode=_OWNERS, exist_ok=True)
    folder.chmod(_OWNERS)
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
        path, mode = folder / name, _READ_BY_COMPOSE if name == "s3.env" else _MOUNTED
        if path.exists():
            path.chmod(mode)
            print(f"kept {path}")
        else:
            # Never readable by more than the owner before it has its mode.
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
            path.chmod(mode)
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
