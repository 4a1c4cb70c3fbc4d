"""An answer of POST /detect in the formats of other tools. Pure functions: the answer in, a document out.

Dimension letters: M objects.
"""

from collections.abc import Sequence

from service.format_schemas import (
    Box,
    CocoAnnotation,
    CocoCategory,
    CocoDocument,
    CocoImage,
    FeatureCollection,
    GeoFeature,
    GeoPolygon,
    GeoProperties,
    LabelStudioData,
    LabelStudioPrediction,
    LabelStudioRectangle,
    LabelStudioRegion,
    LabelStudioTask,
    PictureNote,
    Position,
    SupervisionData,
    SupervisionDetections,
)
from service.schemas import DetectResponse, Format, ModelName

JSON_TYPE, GEOJSON_TYPE, TEXT_TYPE = "application/json", "application/geo+json", "text/plain"
FROM_NAME, TO_NAME = "label", "image"  # of Label Studio's own template for boxes on pictures


def write_answer(answer: DetectResponse, classes: Sequence[str], kind: Format) -> tuple[str, str]:
    """The body in a format, and its media type.

    Args:
        classes: names of all classes of the model, in the order of their ids.
    """
    match kind:
        case "json":
            return answer.model_dump_json(), JSON_TYPE
        case "geojson":
            return to_geojson(answer).model_dump_json(), GEOJSON_TYPE
        case "coco":
            return to_coco(answer, classes).model_dump_json(), JSON_TYPE
        case "supervision":
            return to_supervision(answer).model_dump_json(), JSON_TYPE
        case "labelstudio":
            return to_labelstudio(answer).model_dump_json(), JSON_TYPE
        case "yolo":
            return to_yolo(answer), TEXT_TYPE


def to_geojson(answer: DetectResponse) -> FeatureCollection:
    """Boxes as polygons over the picture, in a plane of pixels with the picture's top-left corner at (0, 0).

    y is negative downwards: QGIS lays a picture without geotransform from (0, 0) to (width, -height), so the
    polygons lie on it as they are; and where y points up, the counter-clockwise ring of RFC 7946 is what it says.
    RFC 7946 knows no other coordinate system than degrees, so GDAL and QGIS assume them; in QGIS, setting the
    layer's coordinate system to none makes lengths and areas pixels. QGIS does not apply EXIF orientation: the
    polygons fit a JPEG that is turned by it only after the picture itself was turned.
    """
    model = model_version(answer.model)
    features = [
        GeoFeature(
            geometry=GeoPolygon(coordinates=(_ring(*item.box),)),
            properties=GeoProperties(label=item.label, class_id=item.class_id, score=item.score, model=model),
        )
        for item in answer.detections
    ]
    return FeatureCollection(picture=_picture_note(answer), features=features)


def to_coco(answer: DetectResponse, classes: Sequence[str]) -> CocoDocument:
    """A COCO data set of one picture. Its `annotations` carry scores, so `COCO.loadRes` takes them as results."""
    return CocoDocument(
        info=_picture_note(answer),
        images=[CocoImage(id=1, file_name=answer.image_id, width=answer.width, height=answer.height)],
        categories=coco_categories(classes),
        annotations=[
            coco_annotation(number, item.box, item.class_id, item.score)
            for number, item in enumerate(answer.detections, start=1)
        ],
    )


def coco_categories(classes: Sequence[str]) -> list[CocoCategory]:
    """Every class of the model, whether or not it was found."""
    return [CocoCategory(id=class_id + 1, name=name) for class_id, name in enumerate(classes)]


def coco_annotation(number: int, box: Box, class_id: int, score: float) -> CocoAnnotation:
    """One object of the only image of a document, from its xyxy box."""
    x1, y1, x2, y2 = box
    width, height = round(x2 - x1, 2), round(y2 - y1, 2)
    return CocoAnnotation(
        id=number,
        image_id=1,
        category_id=class_id + 1,
        bbox=(x1, y1, width, height),
        area=round(width * height, 2),
        score=score,
    )


def to_supervision(answer: DetectResponse) -> SupervisionDetections:
    """What `supervision.Detections` is built from; with `a` for the parsed body:

    sv.Detections(
        np.array(a["xyxy"], float).reshape(-1, 4), confidence=np.array(a["confidence"]),
        class_id=np.array(a["class_id"], int), data={"class_name": np.array(a["data"]["class_name"], str)})
    """
    return SupervisionDetections(
        xyxy=[item.box for item in answer.detections],
        confidence=[item.score for item in answer.detections],
        class_id=[item.class_id for item in answer.detections],
        data=SupervisionData(class_name=[item.label for item in answer.detections]),
        metadata=_picture_note(answer),
    )


def to_labelstudio(answer: DetectResponse) -> LabelStudioTask:
    """One task with its prediction, for Label Studio's import; the picture's address is the importer's to fill in."""
    return LabelStudioTask(
        data=LabelStudioData(image=answer.image_id),
        predictions=[to_labelstudio_prediction(answer)],
        meta=_picture_note(answer),
    )


def to_labelstudio_prediction(
    answer: DetectResponse, from_name: str = FROM_NAME, to_name: str = TO_NAME
) -> LabelStudioPrediction:
    """Boxes in percent of the picture.

    Args:
        from_name: name of the RectangleLabels in the labelling configuration.
        to_name: name of the Image there.
    """
    scores = [item.score for item in answer.detections]
    return LabelStudioPrediction(
        model_version=model_version(answer.model),
        score=round(sum(scores) / len(scores), 4) if scores else 0.0,
        result=[
            LabelStudioRegion(
                id=f"{answer.image_id[:8]}-{number}",
                from_name=from_name,
                to_name=to_name,
                original_width=answer.width,
                original_height=answer.height,
                score=item.score,
                value=LabelStudioRectangle(
                    x=_percent(item.box[0], answer.width),
                    y=_percent(item.box[1], answer.height),
                    width=_percent(item.box[2] - item.box[0], answer.width),
                    height=_percent(item.box[3] - item.box[1], answer.height),
                    rectanglelabels=[item.label],
                ),
            )
            for number, item in enumerate(answer.detections)
        ],
    )


def to_yolo(answer: DetectResponse) -> str:
    """A line `class cx cy w h score` for each object, in fractions of the picture; nothing where there is none."""
    lines: list[str] = []
    for item in answer.detections:
        x1, y1, x2, y2 = item.box
        centre = (x1 + x2) / 2 / answer.width, (y1 + y2) / 2 / answer.height
        size = (x2 - x1) / answer.width, (y2 - y1) / answer.height
        lines.append(f"{item.class_id} " + " ".join(f"{value:.6f}" for value in (*centre, *size, item.score)) + "\n")
    return "".join(lines)


def model_version(model: ModelName) -> str:
    """Name and version in one word."""
    return f"{model.name}/{model.version}"


def _ring(x1: float, y1: float, x2: float, y2: float) -> list[Position]:
    """Closed and counter-clockwise where y points up; `0 - y` rather than `-y`, which makes a -0.0 of 0."""
    top, bottom = 0 - y1, 0 - y2
    return [(x1, bottom), (x2, bottom), (x2, top), (x1, top), (x1, bottom)]


def _percent(value: float, whole: int) -> float:
    return round(100 * value / whole, 4)


def _picture_note(answer: DetectResponse) -> PictureNote:
    return PictureNote(image_id=answer.image_id, width=answer.width, height=answer.height, model=answer.model)
