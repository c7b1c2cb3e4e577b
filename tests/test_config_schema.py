"""What all configs have in common: keys that can be told, and no credentials."""

import pytest
import yaml

from capfilt.cli.options import JOBS, job_kind
from capfilt.config import BootstrapConfig, ExportConfig, describe, loads
from capfilt.config.schema import section_of
from capfilt.errors import ConfigError


@pytest.mark.parametrize("job", JOBS)
def test_the_defaults_that_are_told_are_the_defaults(job):
    kind = job_kind(job)
    told = yaml.safe_load(describe(kind))

    for name, field in kind.model_fields.items():
        if not field.is_required() and section_of(field.annotation) is None:
            expected = field.default
            assert told[name] == (list(expected) if isinstance(expected, tuple) else expected), name


def test_credentials_are_refused_and_not_shown():
    secret = "s3://key:hunter2@bucket/run"
    with pytest.raises(ConfigError, match=r"job\.yaml: run: ") as told:
        loads(ExportConfig, f"run: {secret}", "job.yaml")
    assert "hunter2" not in str(told.value)

    with pytest.raises(ConfigError, match=r"input: ") as told:
        loads(BootstrapConfig, "{input: [a], run: b, captioner: c, filter: d}", "job.yaml", [f"input=[a, '{secret}']"])
    assert "hunter2" not in str(told.value)
