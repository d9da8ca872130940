"""Pages become notebooks and a site; whatever is wrong with one stops the build and says where."""

from __future__ import annotations

import doctest
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext", reason="the notebooks need the extra docs")
nbformat = pytest.importorskip("nbformat", reason="the notebooks need the extra docs")
pytest.importorskip("mkdocs", reason="the site needs the extra docs")

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # docs/ belongs to the checkout, not to the wheel

from docs import __main__ as docs, browser, links, mathematics, notebooks, pages, site  # noqa: E402

PAGE = r"""# 2.5 Everything a page may hold

See [the other](other.md#a-part), $\frac{1}{n} \sum_i x_i$, 3 $ and 4 $.

$$\epsilon \sim \mathcal N(0, 1)$$

```python
from matplotlib import pyplot as plt

import gradlab as torch

print("<first>\n")
torch.rand(2)
```

```output
<first>
<BLANKLINE>
tensor([0.0347, 0.0115])
```

```python
plt.plot([1, 2], [3, 4]);
```

```python
import sys

import pandas as pd

print("progress", file=sys.stderr)
pd.DataFrame({"size": [3.0, None]})
```

```output
   size
0   3.0
1   NaN
```
"""

OTHER = "# 2.1 Other\n\n## A part\n\nText.\n"
SHORT = "# 3.1 Short\n"


def source(folder: Path, **texts: str) -> Path:
    """A folder such as docs/, with the given pages."""
    (folder / "notes").mkdir(parents=True)
    shutil.copytree(ROOT / "docs" / "assets", folder / "assets")
    for name in ("index.md", "notebooks.md", "notes/index.md"):
        shutil.copy(ROOT / "docs" / name, folder / name)
    for name, text in texts.items():
        (folder / "notes" / f"{name}.md").write_text(text, encoding="utf-8")
    return folder


def page(folder: Path, text: str, name: str = "page") -> Path:
    path = folder / f"{name}.md"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of three pages."""
    folder = tmp_path_factory.mktemp("docs")
    texts = source(folder / "docs", everything=PAGE, other=OTHER, short=SHORT)
    assert docs.build(texts, folder / "staging", folder / "site") == []
    return folder / "site"


# ---------------------------------------------------------------------------------------------
# The format of a page


@pytest.mark.parametrize("path", pages.paths(), ids=lambda path: path.stem)
def test_each_page_opens_as_a_notebook_and_is_saved_as_it_was(path):
    text = path.read_text(encoding="utf-8")
    notebook = jupytext.reads(text, fmt="md")
    nbformat.validate(notebook)
    notebook.metadata["jupytext"] = {"notebook_metadata_filter": "-all"}
    assert jupytext.writes(notebook, fmt="md") == text


def test_pages_stand_in_the_order_of_their_sections():
    read = pages.read_all()
    assert [each.section for each in read] == sorted(each.section for each in read)
    assert {each.name for each in read} == {path.stem for path in pages.paths()}


def test_a_page_is_read_into_cells_their_lines_and_what_they_must_give(tmp_path):
    read = pages.read(page(tmp_path, PAGE))
    assert (read.section, read.title) == ((2, 5), "Everything a page may hold")
    assert [cell.cell_type for cell in read.notebook.cells] == ["markdown", *["code"] * 3]
    assert read.lines == {1: 8, 2: 23, 3: 27}
    assert list(read.wanted) == [1, 3]
    assert read.wanted[1] == "<first>\n<BLANKLINE>\ntensor([0.0347, 0.0115])\n"
    assert "```output" not in str(read.notebook)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# Calculus\n", "page.md:1: a page begins with its section, of chapters 2 to 6"),
        ("# 9.1 Calculus\n", "page.md:1: a page begins with its section, of chapters 2 to 6"),
        ("# 2.4 Calculus\n```output\n1\n```\n", "page.md:1: an output block has to stand below"),
        (
            "# 2.4 Calculus\n\n```python\n1\n```\n\nText.\n\n```output\n1\n```\n",
            "page.md:4: an output block has to stand below the python block it belongs to",
        ),
        (
            "# 2.4 Calculus\n\n```python\n1\n```\n\n```sh\nls\n```\n",
            "1 blocks are marked ```python and 2 would be cells of the notebook; mark what is not",
        ),
    ],
)
def test_a_page_that_is_not_one_is_refused(text, said, tmp_path):
    with pytest.raises(pages.PageError, match=re.escape(said)):
        pages.read(page(tmp_path, text))


def test_two_pages_of_one_section_are_refused(tmp_path):
    page(tmp_path, "# 2.4 Calculus\n", "one")
    page(tmp_path, "# 2.4 Probability\n", "two")
    with pytest.raises(pages.PageError, match=r"two\.md:1: one\.md is of the same section"):
        pages.read_all(tmp_path)


# ---------------------------------------------------------------------------------------------
# Running


def test_what_goes_wrong_in_a_notebook_is_told_for_all_pages_with_file_and_line(tmp_path):
    texts = {
        "wrong": "```python\n1 + 1\n```\n\n```output\n3\n```\n",
        "raises": "```python\nx = 0\n```\n\n```python\nprint(x)\n1 / x\n```\n",
        "dies": "```python\nx = 0\n```\n\n```python\nimport os\n\nos._exit(1)\n```\n",
    }
    read = [pages.read(page(tmp_path, f"# 2.1 A\n\n{text}", name)) for name, text in texts.items()]
    wrong, raises, dies = map(str, notebooks.run_all(read))
    assert re.search(r"wrong\.md:4: the page \(-\) and .*- 3.*\+ 2", wrong, re.DOTALL)
    assert raises.endswith("raises.md:9: ZeroDivisionError: division by zero")
    assert re.search(r"dies\.md:8: DeadKernelError: Kernel died$", dies)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_an_interrupted_build_stops_its_kernels_and_says_one_line(tmp_path):
    # A kernel's parent is the build.
    interrupt = "import os, signal\n\nos.kill(os.getppid(), signal.SIGINT)"
    texts = {
        name: f"# 2.{section} A\n\n```python\n{code}\nimport time\n\ntime.sleep(60)\n```\n"
        for name, section, code in (("waits", 1, ""), ("stops", 2, interrupt))
    }
    folder = source(tmp_path / "docs", **texts)
    run = "from docs import __main__ as docs; docs.SOURCE = Path('docs'); sys.exit(docs.main())"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; from pathlib import Path; {run}"],
        cwd=folder.parent, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=40,
        # A job in the background ignores SIGINT, and so do the processes it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "interrupted: the site is not finished\n")
    assert done.returncode == 130


def test_running_a_page_leaves_nothing_in_the_users_home(tmp_path, monkeypatch):
    (home := tmp_path / "home").mkdir()
    (home / ".cache").mkdir()  # Matplotlib's list of fonts
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MPLCONFIGDIR", str(home / ".cache"))
    read = pages.read(page(tmp_path, "# 2.1 A\n\n```python\n1\n```\n"))
    assert notebooks.run_all([read]) == []
    assert [path.name for path in home.iterdir()] == [".cache"]


# ---------------------------------------------------------------------------------------------
# The site


def test_a_page_shows_what_its_code_gave(built):
    text = (built / "notes" / "everything.html").read_text(encoding="utf-8")
    assert "&lt;first&gt;" in text
    assert "tensor([0.0347, 0.0115])" in text
    assert '<th>0</th>\n      <td>3.0</td>' in text  # fmt: skip
    assert text.count("progress") == 1  # in the code
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in text
    assert "3 $ and 4 $" in text
    assert re.search(r'<a [^>]*\bdownload\b[^>]* href="everything.ipynb">', text)
    (figure,) = re.findall(r'<img[^>]*src="(everything-.*?\.svg)"', text)
    assert "<svg" in (built / "notes" / figure).read_text(encoding="utf-8")


def test_a_page_is_to_be_had_as_a_notebook_that_has_run(built):
    notebook = nbformat.read(built / "notes" / "everything.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    text, first, plot, table = notebook.cells
    assert "(other.ipynb#a-part)" in text.source
    assert first.outputs[1].data["text/plain"] == "tensor([0.0347, 0.0115])"
    assert "image/svg+xml" in plot.outputs[0].data
    assert "text/html" in table.outputs[0].data
    assert "manual_seed" not in str(notebook)


def test_the_navigation_holds_all_pages_in_order(built):
    text = (built / "index.html").read_text(encoding="utf-8")
    shown = [
        re.sub(r"\s+", " ", each).strip()
        for each in re.findall(r'md-ellipsis">(.*?)<', text, re.DOTALL)
    ]
    wanted = ["2.1 Other", "2.5 Everything a page may hold"]
    assert [each for each in shown if each in wanted] == wanted
    assert "2.5 <a" in (built / "notes" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[there](nowhere.md)", "nowhere.md"),
        ("[there](other.md#nowhere)", "#nowhere"),
        ("![there](nowhere.svg)", "nowhere.svg"),
        (r"$\nowhere x$", "nowhere"),
    ],
)
def test_what_mkdocs_warns_of_is_told_with_its_page(text, said, tmp_path):
    texts = source(tmp_path / "docs", other=f"# 2.1 Other\n\n{text}\n")
    read = pages.read_all(texts / "notes")
    site.write(read, texts, tmp_path / "staging")
    wrong = "\n".join(site.render(read, tmp_path / "staging", tmp_path / "site"))
    assert "notes/other.md" in wrong
    assert said in wrong


def test_the_code_of_the_first_page_runs():
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    blocks = "\n\n".join(re.findall(r"^```pycon\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    test = doctest.DocTestParser().get_doctest(blocks, {}, "index.md", "index.md", 0)
    assert len(test.examples) > 5
    assert doctest.DocTestRunner().run(test).failed == 0


# ---------------------------------------------------------------------------------------------
# Formulas


def test_a_formula_is_mathml():
    assert mathematics.mathml(r"\frac{1}{n}").endswith(
        "<mfrac><mrow><mn>1</mn></mrow><mrow><mi>n</mi></mrow></mfrac></mrow></math>"
    )
    assert "<mi>𝒩</mi>" in mathematics.mathml(r"\mathcal N")
    assert "<mi>ℒ</mi>" in mathematics.mathml(r"\mathcal L")


@pytest.mark.parametrize(
    ("latex", "drawn"),
    [
        (r"\mathbf w^\top", "<mi>𝐰</mi>"),
        (r"\hat{\mathbf y}", "<mi>𝐲</mi>"),
        (r"\mathbf 1", "<mn>𝟏</mn>"),
        (r"\boldsymbol\mu", "<mi>𝝁</mi>"),
        (r"\mathbb R^n", "<mi>ℝ</mi>"),
    ],
)
def test_vectors_and_sets_are_told_from_numbers_in_every_browser(latex, drawn):
    assert drawn in mathematics.mathml(latex)


@pytest.mark.parametrize("latex", [r"\nowhere x", "a_{", r"\begin{aligned}a&=b\end{aligned}"])
def test_what_is_not_understood_in_a_formula_is_refused(latex):
    with pytest.raises(ValueError, match=re.escape(f"the formula {latex!r}")):
        mathematics.mathml(latex)


# ---------------------------------------------------------------------------------------------
# Links, and the site in a browser


@pytest.mark.parametrize(
    ("markup", "said"),
    [
        ('<a href="nowhere.html">', "'nowhere.html' leads nowhere"),
        ('<a href="../../index.html">', "'../../index.html' leads nowhere"),
        ('<a href="#nowhere">', "'#nowhere' leads to no anchor of index.html"),
        ('<a href="other.html#nowhere">', "'other.html#nowhere' leads to no anchor of other.html"),
        ('<img src="nowhere.png">', "'nowhere.png' leads nowhere"),
        ('<script src="https://cdn.net/x.js">', "'https://cdn.net/x.js' is loaded from elsewhere"),
        ('<a href="http://">', "'http://' is no address"),
    ],
)
def test_a_link_that_leads_nowhere_is_found(markup, said, tmp_path):
    (tmp_path / "other.html").write_text('<p id="here">')
    (tmp_path / "index.html").write_text(f"<html>\n{markup}")
    (wrong,) = links.check(tmp_path)
    assert f"{tmp_path / 'index.html'}:2: {said}" in wrong


def test_links_that_lead_somewhere_are_let_be(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "index.html").write_text('<p id="é"><a name="old"><a href="/x%20y.svg">')
    (tmp_path / "x y.svg").write_text("<svg>")
    (tmp_path / "index.html").write_text(
        '<a href="notes/#%C3%A9"><a href="notes/index.html#old"><img src="x%20y.svg">'
        '<a href="https://gradlab.example/x"><a href="#"><a href="mailto:a@b.example">'
        '<img src="data:image/png;base64,">'
    )
    assert links.check(tmp_path) == []


def test_styles_load_nothing_from_elsewhere(tmp_path):
    (tmp_path / "style.css").write_text("a { background: url('//fonts.example/a.woff') }")
    (wrong,) = links.check(tmp_path)
    assert "'//fonts.example/a.woff' is loaded from elsewhere" in wrong


needs_browser = pytest.mark.skipif(bool(browser.missing()), reason=str(browser.missing()))


@needs_browser
def test_the_site_opens_in_a_browser_and_shows_its_figures(built):
    everything = ["index.html", "notes/index.html", "notes/everything.html", "notebooks.html"]
    assert browser.check(built, everything) == []


@needs_browser
def test_a_browser_finds_what_is_not_shown(tmp_path):
    (tmp_path / "index.html").write_text(
        '<link rel="icon" href="data:,"><img src="nowhere.png"><img src="http://127.0.0.1:1/x.png">'
        "<script>console.error('said so'); throw new Error('thrown')</script>"
    )
    wrong = "\n".join(browser.check(tmp_path, ["index.html"]))
    for said in ("nowhere.png is not shown", "asks for http://127.0.0.1:1/x.png",
                 "index.html: said so", "thrown"):  # fmt: skip
        assert said in wrong
