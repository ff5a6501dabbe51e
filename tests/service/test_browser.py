"""What a browser makes of answers that hold somebody's script."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from benchmarks.serving_process import serving, wait_until_ready
from tests.browser import Browser, browser

SCRIPT = "<script>window.ran=1</script><img src=x onerror=window.ran=1>"
# With a path or a query of hostile text, and without.
PATHS = {
    "a model": f"/v1/models/{quote(SCRIPT, safe='')}",
    "a path": f"/{quote(SCRIPT, safe='')}",
    "a version": f"/v2/models/pumps/versions/{quote(SCRIPT, safe='')}",
    "an answer": "/v1/models/pumps",
    "metrics": "/metrics",
    "the document": "/openapi.json",
}


@pytest.fixture(scope="module")
def url(models: Path) -> Iterator[str]:
    with serving(models) as service:
        wait_until_ready(service.url)
        yield service.url


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as shown:
        yield shown


@pytest.mark.parametrize("case", PATHS)
def test_no_script_of_an_answer_runs(case: str, url: str, page: Browser) -> None:
    page.go(url + PATHS[case])
    assert page.value("[location.pathname, window.ran === undefined, document.querySelectorAll('img').length]") == [
        PATHS[case],
        True,
        0,
    ]


def test_the_documentation_page_runs_its_own_script_and_asks_no_stranger_for_more_than_two_files(
    url: str, page: Browser
) -> None:
    page.go(f"{url}/docs")
    blocked = [complaint for complaint in page.complaints() if "Content Security Policy" in complaint]
    assert blocked == []
    # Its own script did run: it misses what the file that could not be fetched here would have brought.
    assert [c for c in page.complaints() if "SwaggerUIBundle is not defined" in c] != []
    strangers = [asked for asked in page.requests() if not asked.startswith((url, "data:"))]
    assert sorted(asked.rpartition("/")[2] for asked in strangers) == ["swagger-ui-bundle.js", "swagger-ui.css"]


def test_a_script_that_is_not_the_pages_own_is_stopped_by_its_policy(url: str, page: Browser) -> None:
    page.go(f"{url}/docs")
    page.value("document.body.appendChild(document.createElement('script')).text = 'window.ran = 1'")
    assert page.value("window.ran === undefined")
