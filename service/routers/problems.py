"""The errors of each group of paths, for /docs."""

from typing import Any

from service.errors import PROBLEM_TYPE, PROBLEMS
from service.schemas import ProblemBody


def _document(*statuses: int) -> dict[int | str, dict[str, Any]]:
    titles: dict[int, list[str]] = {}
    for problem in PROBLEMS.values():
        titles.setdefault(problem.status, []).append(problem.title)
    content = {PROBLEM_TYPE: {"schema": ProblemBody.model_json_schema()}}
    return {status: {"description": "; ".join(titles[status]), "content": content} for status in statuses}


UPLOAD_PROBLEMS = _document(400, 408, 413, 415, 422, 429, 503, 504)
LOOKUP_PROBLEMS = _document(404, 422, 429, 503, 504)
MODEL_PROBLEMS = _document(404, 503)
HEALTH_PROBLEMS = _document(503)
