import pytest

from capfilt.display import has_credentials, shown


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("s3://KEY:SECRET@bucket/a.tar", "s3://***@bucket/a.tar"),
        ("https://me:p@ss/w@host:80/a.tar", "https://***@host:80/a.tar"),
        (
            "https://b.s3.amazonaws.com/a.tar?X-Amz-Credential=AKIA%2F1&X-Amz-Expires=60&x-amz-signature=abc",
            "https://b.s3.amazonaws.com/a.tar?X-Amz-Credential=***&X-Amz-Expires=***&x-amz-signature=***",
        ),
        (
            "https://acc.blob.core.windows.net/c/a.tar?sv=2024&sig=s%3D",
            "https://acc.blob.core.windows.net/c/a.tar?sv=2024&sig=***",
        ),
        (
            "https://storage.googleapis.com/b/a?X-Goog-Signature=1f",
            "https://storage.googleapis.com/b/a?X-Goog-Signature=***",
        ),
        ("https://host/a.tar?page=2&token=abc#x", "https://host/a.tar?page=2&token=***"),
        ("https://host/a.tar?%74oken=abc", "https://host/a.tar?%74oken=***"),
        ("abfs://c@acc.dfs.core.windows.net/a?access_token=x", "abfs://c@acc.dfs.core.windows.net/a?access_token=***"),
    ],
)
def test_credentials_of_a_url_are_known_and_hidden(url, seen):
    assert has_credentials(url)
    assert shown(url) == seen
    assert shown(f"cannot read '{url}', nor {url} again") == f"cannot read '{seen}', nor {seen} again"
    assert not has_credentials(seen.replace("=***", "").replace("***@", ""))


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/a.tar",
        "s3://bucket/a@b:c/d.tar",
        "s3://bucket/a.tar?versionId=3",
        "https://host:8080/a@b.tar?page=2",
        "sftp://user@host/a.tar",
        "abfs://container@account.dfs.core.windows.net/a.tar",
        "/data/me:you@home/key=1.tar",
        "{000..127}.tar?token=x",
    ],
)
def test_other_urls_are_shown_as_they_are(url):
    assert not has_credentials(url)
    assert shown(url).startswith(url.partition("?token")[0])


def test_what_would_move_a_cursor_or_turn_a_line_is_shown_as_an_escape():
    assert (
        shown("a\x1b[2J\rb\u202ec\u200bd\u2028e\ud800f\x9bg") == "a\\x1b[2J\\rb\\u202ec\\u200bd\\u2028e\\ud800f\\x9bg"
    )
    assert shown("two lines\n\tof \N{DOG FACE}") == "two lines\n\tof 🐶"
