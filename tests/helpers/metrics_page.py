"""Read what GET /metrics says."""

from prometheus_client.parser import text_string_to_metric_families


def samples(page: bytes | str) -> dict[str, float]:
    """Value of each sample; a name is followed by its labels in order of the alphabet: `name{a=1}{b=2}`."""
    text = page if isinstance(page, str) else page.decode()
    return {
        sample.name + "".join(f"{{{key}={value}}}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
