"""One visit to the page in a browser: what a test does there and what it sees."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import Page, Request


@dataclass
class Visit:
    """The page in a tab, with everything that it asked for and complained about."""

    page: Page
    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def send(self, data: bytes, name: str = "scene.png") -> None:
        """Choose a file and wait for its answer."""
        self.choose(data, name)
        self.page.wait_for_selector("main[data-state=result]")
        self.page.wait_for_selector("#busy", state="hidden")

    def choose(self, data: bytes, name: str = "scene.png") -> None:
        """Choose a file, and do not wait."""
        self.page.set_input_files("#file", {"name": name, "mimeType": "", "buffer": data})

    def calls(self, path: str) -> int:
        """How often the page has called a path of the service."""
        return sum(urlsplit(request.url).path == path for request in self.requests)

    def text(self, selector: str) -> str:
        """Visible text of an element."""
        return self.page.inner_text(selector).strip()

    def set_slider(self, selector: str, value: float) -> None:
        """Move a slider as a person does: the value, then the events."""
        self.page.fill(selector, str(value))

    def pixels_like(self, color: tuple[int, int, int]) -> int:
        """How many pixels of the canvas are nearly of this colour."""
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return self.page.evaluate(
            """([red, green, blue]) => {
                const canvas = document.getElementById("canvas");
                const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                let count = 0;
                for (let i = 0; i < data.length; i += 4) {
                    const far = Math.abs(data[i] - red) + Math.abs(data[i + 1] - green) + Math.abs(data[i + 2] - blue);
                    if (far < 24) count += 1;
                }
                return count;
            }""",
            list(color),
        )
