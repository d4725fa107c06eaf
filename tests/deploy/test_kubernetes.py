"""What kustomize renders is what Kubernetes' schemas allow: by kubectl, and the schemas that `make soak` installs."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.deadlines import DEADLINE_S
from tests.deploy.watching import DEPLOY

pytestmark = pytest.mark.soak
KUBERNETES = DEPLOY / "kubernetes"
FOLDERS = sorted(path.parent for path in KUBERNETES.rglob("kustomization.yaml"))
VERSIONS = ("1.34", "1.35", "1.36", "1.37")
LIVE, ALONE = {"StatefulSet", "Service", "PodDisruptionBudget", "CronJob"}, {"Job", "ServiceAccount", "Namespace"}
OTHERS = {"ScaledObject", "PodMonitor"}  # of KEDA and of the Prometheus operator: no schema of Kubernetes


def rendered(folder: str) -> list[dict[str, Any]]:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on PATH")
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(KUBERNETES)))
def test_what_is_rendered_is_what_the_schemas_allow(folder: str) -> None:
    schemas = pytest.importorskip("kubernetes_validate", reason="`make soak` installs it")
    documents = rendered(str(folder))
    for document in documents:
        for version in VERSIONS if document["kind"] not in OTHERS else ():
            schemas.validate(document, version, strict=True)
    kinds = {document["kind"] for document in documents}
    assert {"NetworkPolicy", "ConfigMap"} | (ALONE if "Job" in kinds else LIVE) <= kinds
    assert not ("Job" in kinds and kinds & LIVE), "a replay starts no worker"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(KUBERNETES)))
def test_policies_select_the_pods_that_they_are_about(folder: str) -> None:
    documents = rendered(str(folder))
    pods = {  # component -> labels
        labels["app.kubernetes.io/component"]: labels.items()
        for labels in (_pod(document)["metadata"]["labels"] for document in documents if _pod(document))
    }
    (network,) = [each["spec"]["podSelector"] for each in documents if each["kind"] == "NetworkPolicy"]
    assert all(network["matchLabels"].items() <= labels for labels in pods.values())
    for kind in ("PodDisruptionBudget", "PodMonitor", "StatefulSet"):
        for document in documents:
            if document["kind"] == kind:
                chosen = document["spec"]["selector"]["matchLabels"].items()
                assert [name for name, labels in pods.items() if chosen <= labels] == ["worker"], kind


def _pod(document: dict[str, Any]) -> dict[str, Any]:
    """The template of its pods; empty if it has none."""
    spec = document.get("spec", {})
    found: dict[str, Any] = spec.get("template", spec.get("jobTemplate", {}).get("spec", {}).get("template", {}))
    return found


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(KUBERNETES)))
def test_every_pod_is_as_restricted_asks_and_names_an_image_with_a_tag(folder: str) -> None:
    for document in rendered(str(folder)):
        if not (pod := _pod(document).get("spec")):
            continue
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert container["image"].startswith("adawise:")
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {"requests", "limits"} <= set(container["resources"])


def test_the_overlay_for_a_card_keeps_what_the_base_has_and_asks_for_a_card() -> None:
    (worker,) = [each for each in rendered(str(KUBERNETES / "overlays/gpu")) if each["kind"] == "StatefulSet"]
    (container,) = worker["spec"]["template"]["spec"]["containers"]
    names = [variable["name"] for variable in container["env"]]
    assert {"POD_NAME", "ADAWISE_KAFKA__STATIC_MEMBER", "ADAWISE_MODEL__DEVICE"} <= set(names)
    assert names.index("POD_NAME") < names.index("ADAWISE_KAFKA__STATIC_MEMBER"), "$(POD_NAME) is of what is before"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_overlays_of_a_replay_ask_for_a_card_only_where_images_are_served() -> None:
    for name, cards in (("replay", [False, False]), ("replay-gpu", [False, True])):
        (job,) = [each for each in rendered(str(KUBERNETES / "overlays" / name)) if each["kind"] == "Job"]
        pod = job["spec"]["template"]["spec"]
        containers = (*pod["initContainers"], *pod["containers"])
        assert ["nvidia.com/gpu" in each["resources"]["limits"] for each in containers] == cards
