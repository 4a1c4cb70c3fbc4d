"""GET / and the files of the page: what the server says about them."""

import re

import httpx
import pytest

from service.routers.page import FOLDER

FILES = sorted(path.name for path in FOLDER.iterdir())


def test_the_page_is_html_that_names_its_script_and_style(client: httpx.Client) -> None:
    answer = client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert 'src="ui/app.js"' in answer.text
    assert 'href="ui/style.css"' in answer.text


@pytest.mark.parametrize("path", ["/", *(f"/ui/{name}" for name in FILES)])
def test_every_file_of_the_page_forbids_all_but_its_own_origin(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(("name", "kind"), [("app.js", "text/javascript"), ("style.css", "text/css")])
def test_browsers_get_the_type_they_insist_on(client: httpx.Client, name: str, kind: str) -> None:
    assert client.get(f"/ui/{name}").headers["content-type"] == f"{kind}; charset=utf-8"


def test_a_file_that_the_browser_has_is_not_sent_again(client: httpx.Client) -> None:
    first = client.get("/ui/app.js")
    again = client.get("/ui/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fapp.py", "%2Fetc%2Fpasswd", "../app.py"])
def test_only_the_files_of_the_page_can_be_asked_for(client: httpx.Client, name: str) -> None:
    answer = client.get(f"/ui/{name}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_page_is_there_while_the_model_is_not(make_client, tmp_path) -> None:
    assert make_client(models=tmp_path).get("/").status_code == 200


def test_no_markup_holds_a_script_or_a_style() -> None:
    markup = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", markup)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js")])
def test_no_script_makes_markup_or_code_from_strings(name: str) -> None:
    script = (FOLDER / name).read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", script)


@pytest.mark.parametrize("name", FILES)
def test_no_file_of_the_page_names_another_host(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert "//" not in re.sub(r"(?m)^\s*//.*$|\s// .*$", "", text)
