"""A connection to the dashboard of a cluster; how its outages are borne is in test_jobs.py."""

from click.testing import CliRunner
from dashboards import dashboard

from capfilt.cli import cli


def test_a_dashboard_that_asks_for_a_token_is_told_with_what_gives_it(monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    with dashboard(locked=True) as port:
        result = CliRunner().invoke(cli, ["status", "run", "--address", f"http://127.0.0.1:{port}"])
    assert result.exit_code == 1
    assert len(result.output.splitlines()) == 1
    assert "Missing authentication token; for a cluster that asks for a token set RAY_AUTH_MODE=token" in result.output
