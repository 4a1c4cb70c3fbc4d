"""The errors of each group of paths, for /docs."""

from collections.abc import Mapping
from typing import Any

from service.errors import ServiceError
from service.problems import PROBLEM_TYPE, PROBLEMS, Problem, problem_body
from service.routers.documentation import Responses, reference
from service.schemas import ProblemBody


def _document(*statuses: int) -> Responses:
    return {
        status: _answer({kind: row for kind, row in PROBLEMS.items() if row.status == status}) for status in statuses
    }


def _answer(problems: Mapping[type[ServiceError], Problem]) -> dict[str, Any]:
    """All problems of one status, each with the meaning of its exception in place of a real detail."""
    examples = {
        row.code: {"summary": row.title, "value": problem_body(row.status, row.code, row.title, _meaning(kind))}
        for kind, row in problems.items()
    }
    description = "; ".join(row.title for row in problems.values())
    content = {PROBLEM_TYPE: {"schema": reference(ProblemBody), "examples": examples}}
    return {"description": description, "content": content}


def _meaning(kind: type[ServiceError]) -> str:
    return " ".join((kind.__doc__ or "").split())


UPLOAD_PROBLEMS = _document(400, 401, 408, 413, 415, 422, 429, 503, 504)
SETUP_PROBLEMS = _document(400, 401, 408, 413, 415, 422, 429, 503)
LOOKUP_PROBLEMS = _document(401, 404, 422, 429, 503, 504)
MODEL_PROBLEMS = _document(401, 404, 503)
SCENE_UPLOAD_PROBLEMS = _document(400, 401, 408, 413, 415, 422, 429, 503, 507)
SCENE_LIST_PROBLEMS = _document(401, 507)
SCENE_PROBLEMS = _document(401, 404, 507)
SCENE_CHANGE_PROBLEMS = _document(401, 404, 409, 429, 507)
SCENE_PREVIEW_PROBLEMS = _document(400, 401, 404, 409, 422, 429, 503, 504, 507)
SCENE_FILE_PROBLEMS = _document(401, 404, 409, 422, 429, 503, 504, 507)
HEALTH_PROBLEMS = _document(503)
