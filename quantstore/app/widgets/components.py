"""Small pieces of interface that Streamlit lacks: real tables with wrapping words and buttons.

Every string is set by ``textContent``, so that a name from a file is never markup. Colours follow
the theme by themselves (``light-dark``). Each function returns what was clicked, for one rerun.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from quantstore.charts.palette import css_variables

BASE_CSS = (
    ":host, .root {\n"
    + css_variables()
    + """
}
.root {
    font-family: var(--st-font), sans-serif;
    font-size: 15px;
    line-height: 1.35;
    color: var(--text);
    font-variant-numeric: tabular-nums;
    container-type: inline-size;
}
table { border-collapse: collapse; width: 100%; }
th {
    font-weight: 400; font-size: 12px; color: var(--muted); text-align: left;
    vertical-align: bottom; padding: 0 8px 6px 0; border-bottom: 1px solid var(--grid);
}
td { padding: 8px 8px 8px 0; vertical-align: top; border-bottom: 1px solid var(--grid); }
button {
    font: inherit; color: inherit; background: none; border: 0; padding: 0; margin: 0;
    text-align: left; cursor: pointer;
}
button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 4px; }
.small { font-size: 12px; font-weight: 400; color: var(--muted); }
.number { text-align: right; }
.number + :not(.number) { padding-left: 22px; }
"""
)

_THEME_JS = """
export default function ({ data, parentElement, setStateValue }) {
    const probe = parentElement.querySelector("i");
    // New data calls this once more, and nothing tidies up what the call before has left: its timer
    // would report, for ever, that the theme is not the one it knows.
    clearInterval(probe.timer);
    let told = data.theme;
    const compare = () => {
        if (!probe.isConnected) return;
        const shown = getComputedStyle(probe).colorScheme.includes("dark") ? "dark" : "light";
        if (shown === told) return;
        told = shown;
        setStateValue("theme", shown);
    };
    const timer = setInterval(compare, 250);
    probe.timer = timer;
    compare();
    return () => clearInterval(timer);
}
"""

_MATRIX_CSS = (
    BASE_CSS
    + """
table { table-layout: fixed; border-collapse: separate; border-spacing: 0; }
th:first-child, td:first-child { width: 24%; padding-right: 12px; }
th button {
    line-height: 1.3; min-height: 26px; padding: 0 0 5px; border-bottom: 2px solid transparent;
}
th button:hover { color: var(--text); }
th button[aria-pressed="true"] {
    color: var(--text); font-weight: 600; border-bottom-color: var(--accent);
}
th { padding-bottom: 2px; }
th label { display: block; padding-bottom: 5px; }
th select {
    font: inherit; color: var(--text); background: none; border: 0; padding: 0; cursor: pointer;
    max-width: 100%;
}
th select:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
th select option { color: var(--text); background: var(--background); }
td { border-bottom: 0; padding: 3px 8px 3px 0; height: 1px; }
td:last-child, th:last-child { padding-right: 0; }
.name button, .name span.plain { font-weight: 600; overflow-wrap: anywhere; }
.name .lines {
    display: -webkit-box; -webkit-line-clamp: 3; -webkit-box-orient: vertical; overflow: hidden;
}
.name button:hover { color: var(--accent); }
.cell {
    display: flex; flex-direction: column; justify-content: space-between; gap: 7px;
    width: 100%; height: 100%; min-height: 46px; box-sizing: border-box;
    border-radius: 6px; padding: 6px 10px 8px;
}
.cell:hover { filter: brightness(0.97); }
.cell.untested { outline: 1px dashed var(--untested-ink); outline-offset: -1px; }
/* Inside the cell: a table that moves sideways would cut it off outside. */
.cell.cell:focus-visible { outline: 3px solid var(--accent); outline-offset: -3px; }
.glyph {
    display: inline-block; width: 16px; height: 16px; margin-right: 6px; border-radius: 50%;
    border: 1px solid currentColor; box-sizing: border-box; font-size: 11px; line-height: 14px;
    text-align: center;
}
.verdict { font-weight: 600; font-size: 14px; }
.more { font-weight: 400; font-size: 12px; margin-left: 6px; white-space: nowrap; }
.evidence { color: inherit; opacity: 0.86; font-size: 11px; line-height: 1.3; margin-top: 1px; }
.rescued { font-weight: 600; opacity: 1; }
.strip { display: flex; gap: 1px; height: 6px; width: 100%; }
.strip i { min-width: 2.5px; display: block; }
@container (max-width: 700px) {
    th:first-child, td:first-child { width: 31%; }
    .verdict { font-size: 13px; }
    .cell { padding: 6px 7px 8px; }
    .more, .extra { display: none; }
    .cell { overflow-wrap: anywhere; }
}
/* Too narrow for whole words: the table moves sideways below its names. */
@container (max-width: 520px) {
    .scroll { overflow-x: auto; }
    .scroll table { width: max-content; table-layout: auto; }
    th:first-child, td:first-child {
        width: 104px; min-width: 104px; max-width: 104px; position: sticky; left: 0; z-index: 1;
        background: var(--background); overflow-wrap: anywhere;
    }
    th:not(:first-child), td:not(:first-child) { width: 112px; min-width: 112px; max-width: 112px; }
    th select { max-width: 96px; }
    .cell { overflow-wrap: normal; }
}
"""
)

_MATRIX_JS = """
const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
};

// One stop for Tab, and arrows, Home and End between the buttons: the pattern of a grid.
const walkable = (root, table, grid, data, focused) => {
    const all = grid.flat().filter(Boolean);
    const at = (place) => all.find((button) => button.dataset.place === place);
    const answer = data.rows.length ? JSON.stringify([data.rows[0].name, data.chosen]) : "";
    let stop;
    const mark = (button) => {
        if (stop) stop.tabIndex = -1;
        stop = button;
        stop.tabIndex = 0;
        root.place = stop.dataset.place;
    };
    for (const button of all) button.tabIndex = -1;
    mark(at(root.place) ?? at(answer) ?? all[0]);
    // What is redrawn loses the keyboard's place.
    if (focused) at(focused)?.focus({ preventScroll: true });
    table.addEventListener("focusin", (event) => {
        if (all.includes(event.target)) mark(event.target);
    });
    table.addEventListener("keydown", (event) => {
        if (!all.includes(event.target) || event.altKey || event.shiftKey) return;
        const row = grid.findIndex((buttons) => buttons.includes(event.target));
        const column = grid[row].indexOf(event.target);
        const isWhole = event.ctrlKey || event.metaKey;
        const next = {
            ArrowRight: () => grid[row].slice(column + 1).find(Boolean),
            ArrowLeft: () => grid[row].slice(0, column).findLast(Boolean),
            ArrowDown: () => grid.slice(row + 1).map((buttons) => buttons[column]).find(Boolean),
            ArrowUp: () =>
                grid.slice(0, row).map((buttons) => buttons[column]).findLast(Boolean),
            Home: () => (isWhole ? all : grid[row]).find(Boolean),
            End: () => (isWhole ? all : grid[row]).findLast(Boolean),
        }[event.key];
        if (!next) return;
        event.preventDefault();
        next()?.focus();
    });
};

export default function ({ data, parentElement, setTriggerValue }) {
    const root = parentElement.querySelector(".root");
    const focused = parentElement.activeElement?.dataset?.place;
    const table = element("table");
    table.setAttribute("role", "grid");
    table.setAttribute("aria-label", "Verdicts by target");
    // Rows of buttons, null where there is none: Tab stops once, arrows go from one to the next.
    const grid = [[null]];
    const head = element("tr");
    const corner = element("th", "", data.sort ? "" : data.corner);
    corner.scope = "col";
    if (data.sort) {
        const label = element("label", "", data.corner + ", by ");
        const select = element("select");
        for (const [value, words] of data.sort.options) {
            const option = element("option", "", words);
            option.value = value;
            option.selected = value === data.sort.chosen;
            select.appendChild(option);
        }
        select.setAttribute("aria-label", "Sort the models by");
        select.onchange = () => setTriggerValue("clicked", { sort: select.value });
        label.appendChild(select);
        corner.appendChild(label);
    }
    head.appendChild(corner);
    for (const target of data.targets) {
        const cell = element("th");
        cell.scope = "col";
        const button = element("button");
        for (const line of target.lines) button.appendChild(element("div", "", line));
        button.setAttribute("aria-pressed", String(target.name === data.chosen));
        button.title = "Judge all pages for " + target.title;
        button.dataset.place = JSON.stringify([null, target.name]);
        grid[0].push(button);
        button.onclick = () => setTriggerValue("clicked", { target: target.name });
        cell.appendChild(button);
        head.appendChild(cell);
    }
    const thead = element("thead");
    thead.appendChild(head);
    const body = element("tbody");
    for (const row of data.rows) {
        const line = element("tr");
        const buttons = [null];
        grid.push(buttons);
        const name = element("td", "name");
        if (row.model !== null) {
            const open = element("button");
            open.appendChild(element("span", "lines", row.title));
            open.title = "Open " + row.title;
            open.dataset.place = JSON.stringify([row.name, null]);
            buttons[0] = open;
            open.onclick = () => setTriggerValue("clicked", { model: row.model });
            name.appendChild(open);
        } else {
            const plain = element("span", "plain lines", row.title);
            plain.title = row.title;
            name.appendChild(plain);
        }
        const facts = element("div", "small", row.facts[0]);
        if (row.facts.length > 1) {
            facts.appendChild(element("span", "extra", " · " + row.facts.slice(1).join(" · ")));
        }
        name.appendChild(facts);
        if (row.caveat) name.appendChild(element("div", "small", row.caveat));
        line.appendChild(name);
        row.cells.forEach((cell, index) => {
            const box = element("td");
            const band = cell.band.replace(" ", "-");
            const button = element("button", "cell");
            button.style.background = `var(--${band}-tint)`;
            button.style.color = `var(--${band}-ink)`;
            if (cell.glyph) button.classList.add("untested");
            const words = element("div", "verdict");
            if (cell.glyph) {
                const glyph = element("span", "glyph", cell.glyph);
                glyph.setAttribute("aria-hidden", "true");
                words.appendChild(glyph);
            }
            words.appendChild(document.createTextNode(cell.text));
            if (cell.more) words.appendChild(element("span", "more", cell.more));
            words.appendChild(document.createTextNode(" "));
            const evidence = element("div", "evidence small");
            // What the figure is of, and what the layers say, each on a line of its own.
            const [first, ...others] = cell.evidence.split("; ");
            evidence.appendChild(document.createTextNode(first));
            for (const other of others) evidence.appendChild(element("div", "", other));
            words.appendChild(evidence);
            if (cell.rescued) words.appendChild(element("div", "evidence rescued", cell.rescued));
            button.appendChild(words);
            const strip = element("div", "strip");
            for (const [name, count] of cell.counts) {
                if (!count) continue;
                const part = element("i");
                part.style.flex = String(count);
                part.style.background = `var(--${name.replace(" ", "-")}-fill)`;
                strip.appendChild(part);
            }
            button.appendChild(strip);
            const layers = cell.counts.map(([name, count]) => `${count} ${name}`).join(", ");
            button.title = (cell.tip ? cell.tip + " " : "") + "Layers by weights: " + layers;
            const target = data.targets[index];
            button.dataset.place = JSON.stringify([row.name, target.name]);
            buttons.push(button);
            button.setAttribute(
                "aria-label",
                `${row.title}, ${target.title}: ${cell.text} ${cell.more}; `
                + `${cell.evidence}; ${cell.rescued ? cell.rescued + "; " : ""}`
                + `layers by weights: ${layers}`);
            button.onclick = () => setTriggerValue(
                "clicked", { model: row.name, target: target.name });
            box.appendChild(button);
            line.appendChild(box);
        });
        body.appendChild(line);
    }
    table.append(thead, body);
    const scroll = element("div", "scroll");
    scroll.appendChild(table);
    root.replaceChildren(scroll);
    walkable(root, table, grid, data, focused);
    // Where the table moves sideways, the chosen column shows behind the names.
    const chosen = head.querySelector('[aria-pressed="true"]');
    if (chosen && scroll.scrollWidth > scroll.clientWidth) {
        scroll.scrollLeft = chosen.parentElement.offsetLeft - corner.offsetWidth;
    }
}
"""

_LAYERS_CSS = (
    BASE_CSS
    + """
tbody tr { cursor: pointer; }
td:not(.name) .small { white-space: nowrap; }
tbody tr:hover td { background: color-mix(in srgb, var(--grid) 35%, transparent); }
tr.chosen td { background: color-mix(in srgb, var(--grid) 55%, transparent); }
td:first-child, th:first-child { padding-left: 6px; }
td:last-child, th:last-child { padding-right: 6px; }
.name { overflow-wrap: anywhere; font-weight: 600; }
.name button { font-weight: 600; }
.note { font-size: 13px; font-weight: 400; }
.name .lines {
    display: -webkit-box; -webkit-line-clamp: 3; -webkit-box-orient: vertical; overflow: hidden;
}
.chip {
    display: inline-block; padding: 1px 8px; border-radius: 5px; font-size: 13px; font-weight: 600;
    white-space: nowrap;
}
.spark { display: flex; align-items: flex-end; gap: 0.5px; width: 140px; height: 28px;
    border-bottom: 1px solid var(--axis); }
.spark i { flex: 1; display: block; }
.interval { position: relative; width: 140px; height: 14px; margin-bottom: 3px; }
.interval i { position: absolute; display: block; min-width: 1px; }
.interval .grid { top: 2px; height: 10px; background: var(--bar-alternate); border-radius: 2px; }
.interval .seen { top: 6px; height: 2px; background: var(--text); }
@container (max-width: 760px) { .wide { display: none; } .interval { width: 90px; } }
/* Too narrow for every column: words wrap, and what is left moves sideways by itself. */
.scroll { overflow-x: auto; }
@container (max-width: 520px) {
    td:not(.name) .small { white-space: normal; }
    td, th { padding-right: 6px; }
    .number + :not(.number) { padding-left: 10px; }
    .interval { width: 64px; }
}
"""
)

_LAYERS_JS = """
const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
};

const breakable = (parent, text) => {
    for (const piece of text.split(/(?<=[/._])/)) {
        parent.appendChild(document.createTextNode(piece));
        parent.appendChild(document.createElement("wbr"));
    }
};

const draw = {
    name(box, value) {
        box.className = "name";
        const words = element("div", "lines");
        breakable(words, value.text);
        words.title = value.text;
        box.appendChild(words);
        if (value.small) box.appendChild(element("div", "small", value.small));
        if (value.note) box.appendChild(element("div", "note", value.note));
    },
    pair(box, value) {
        box.appendChild(element("div", "", value.text));
        if (value.small) box.appendChild(element("div", "small", value.small));
    },
    chip(box, value) {
        if (!value.band) {
            box.appendChild(element("div", "small", value.text));
            return;
        }
        const band = value.band.replace(" ", "-");
        const chip = element("span", "chip", value.band);
        chip.style.background = `var(--${band}-tint)`;
        chip.style.color = `var(--${band}-ink)`;
        box.appendChild(chip);
        if (value.small) box.appendChild(element("div", "small", value.small));
    },
    spark(box, value) {
        const chart = element("div", "spark");
        chart.setAttribute("role", "img");
        chart.setAttribute("aria-label", value.label);
        chart.title = value.label;
        const highest = Math.sqrt(Math.max(1, ...value.counts));
        value.counts.forEach((count, index) => {
            const bar = element("i");
            bar.style.height = `${count ? Math.max(2, 28 * Math.sqrt(count) / highest) : 0}px`;
            bar.style.background = `var(--${value.bands[index].replace(" ", "-")}-fill)`;
            chart.appendChild(bar);
        });
        box.appendChild(chart);
    },
    interval(box, value) {
        if (value.bars) {
            const picture = element("div", "interval");
            picture.setAttribute("role", "img");
            picture.setAttribute("aria-label", value.label);
            picture.title = value.label;
            ["grid", "seen"].forEach((name, index) => {
                if (!value.bars[index]) return;
                const bar = element("i", name);
                bar.style.left = `${100 * value.bars[index][0]}%`;
                bar.style.width = `${100 * value.bars[index][1]}%`;
                picture.appendChild(bar);
            });
            box.appendChild(picture);
        }
        box.appendChild(element("div", "small", value.text));
        if (value.small) box.appendChild(element("div", "small", value.small));
    },
};

export default function ({ data, parentElement, setTriggerValue }) {
    const root = parentElement.querySelector(".root");
    const table = element("table");
    const head = element("tr");
    for (const column of data.columns) {
        const cell = element("th", `${column.number ? "number " : ""}${column.wide ? "wide" : ""}`);
        cell.scope = "col";
        cell.textContent = column.title;
        if (column.help) cell.title = column.help;
        head.appendChild(cell);
    }
    const thead = element("thead");
    thead.appendChild(head);
    const body = element("tbody");
    for (const row of data.rows) {
        const line = element("tr", row.chosen ? "chosen" : "");
        const opens = data.opens && row.key !== null;
        row.cells.forEach((value, index) => {
            const column = data.columns[index];
            const box = element("td");
            if (value !== null) draw[column.kind](box, value);
            if (column.number) box.classList.add("number");
            if (column.wide) box.classList.add("wide");
            if (column.kind === "name" && opens) {
                const button = element("button");
                button.append(...box.childNodes);
                box.appendChild(button);
            }
            line.appendChild(box);
        });
        if (opens) line.onclick = () => setTriggerValue("clicked", { row: row.key });
        else line.style.cursor = "default";
        body.appendChild(line);
    }
    table.append(thead, body);
    const scroll = element("div", "scroll");
    scroll.appendChild(table);
    root.replaceChildren(scroll);
}
"""

_SAVE_CSS = (
    BASE_CSS
    + """
button { text-decoration: underline; text-underline-offset: 2px; }
button:hover { color: var(--accent); }
"""
)

_SAVE_JS = """
const save = (blob, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};

const saveOnceDrawn = (key, title, deadline) => {
    const place = document.querySelector(`.st-key-${CSS.escape(key)}`);
    const drawing = place?.querySelector("svg.marks");
    const pixels = place?.querySelector("canvas");
    const name = title.replace(/[^A-Za-z0-9]+/g, "-").replace(/^-|-$/g, "").toLowerCase();
    if (drawing) {
        const text = new XMLSerializer().serializeToString(drawing);
        save(new Blob([text], { type: "image/svg+xml" }), `${name}.svg`);
    } else if (pixels) {
        // Charts of very many marks are drawn as pixels.
        pixels.toBlob((blob) => save(blob, `${name}.png`));
    } else if (performance.now() < deadline) {
        // The button may be there before its chart is.
        setTimeout(saveOnceDrawn, 100, key, title, deadline);
    }
};

export default function ({ data, parentElement }) {
    const line = document.createElement("div");
    line.className = "small";
    line.append("Save as SVG: ");
    data.charts.forEach(({ key, title }, index) => {
        const button = document.createElement("button");
        button.textContent = title;
        button.onclick = () => saveOnceDrawn(key, title, performance.now() + 20000);
        if (index) line.append(" · ");
        line.append(button);
    });
    parentElement.querySelector(".root").replaceChildren(line);
}
"""

# Registered once, when the module is first imported. A path-like string would name a file, so the
# markup has a line break.
_ROOT = '<div class="root">\n</div>'
_theme = st.components.v2.component("quantstore_theme", html="<i>\n</i>", js=_THEME_JS)
_matrix = st.components.v2.component(
    "quantstore_matrix", html=_ROOT, css=_MATRIX_CSS, js=_MATRIX_JS
)
_save = st.components.v2.component("quantstore_save", html=_ROOT, css=_SAVE_CSS, js=_SAVE_JS)
_table = st.components.v2.component("quantstore_table", html=_ROOT, css=_LAYERS_CSS, js=_LAYERS_JS)


def register(name: str, *, css: str, js: str) -> Callable[..., Any]:
    """A further piece in the same dress; what it draws goes into an element of class ``root``."""
    return st.components.v2.component(name, html=_ROOT, css=BASE_CSS + css, js=js)


_BRUSH_JS = """
export default function ({ data, parentElement }) {
    const own = parentElement.querySelector("i");
    clearInterval(own.timer);
    const hide = () => {
        for (const part of document.querySelectorAll(data.parts)) part.ariaHidden = "true";
    };
    own.timer = setInterval(hide, 300);
    hide();
    return () => clearInterval(own.timer);
}
"""
_brush = st.components.v2.component("quantstore_brush", html="<i>\n</i>", js=_BRUSH_JS)


def hide_brush(name: str) -> None:
    """Keep the rectangles of a selection in a chart from screen readers: Vega gives them no words.

    Args:
        name: of the selection.
    """
    _brush(key=f"brush_{name}", data={"parts": f".{name}_brush, .{name}_brush_bg"}, height=1)


def watch_theme(theme: str) -> str | None:
    """The theme the browser shows, once it differs from the one that was used to draw."""
    result = _theme(key="theme_watch", data={"theme": theme}, on_theme_change=_nothing, height=1)
    browser_theme = result.theme
    return browser_theme if browser_theme in ("light", "dark") else None


def verdict_matrix(
    *,
    corner: str,
    targets: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    chosen: str,
    key: str,
    on_click: Callable[[], None],
    sort: Mapping[str, Any] | None = None,
) -> None:
    """Models by targets, in words and colour; heads and cells are buttons.

    Args:
        targets: ``name``, ``title`` and the ``lines`` of each head.
        rows: ``model`` (None on the page of the model itself), ``name``, ``title``, ``facts``,
            ``caveat`` (a line of its own) and ``cells`` with ``band``, ``text``, ``more``,
            ``glyph`` (before the words), ``evidence`` (what they rest on), ``rescued`` (what a
            rescue reached or an audit found, or nothing), ``tip`` and ``counts`` (pairs of band
            and layers).
        on_click: reads ``st.session_state[key].clicked``: ``{"model"?: ..., "target"?: ...}``, or
            ``{"sort": ...}``.
        sort: ``options`` (pairs of value and words) and the ``chosen`` value; None for no choice.
    """
    _matrix(
        key=key,
        data={
            "corner": corner,
            "targets": targets,
            "rows": rows,
            "chosen": chosen,
            "sort": sort,
        },
        on_clicked_change=on_click,
    )


def table(
    *,
    columns: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    key: str,
    on_click: Callable[[], None] | None = None,
) -> None:
    """A table with wrapping names, chips and small histograms; a row is a button where it opens.

    Args:
        columns: ``title``, ``kind`` (name, pair, chip, spark or interval), ``number``, ``wide``
            (hidden where the table is narrow).
        rows: ``key`` (None for a row that opens nothing), ``chosen`` and one value per column:
            ``text`` and ``small`` below it; a name may have a ``note`` as well, a chip has a
            ``band``, or a text for none.
        on_click: reads ``st.session_state[key].clicked``: ``{"row": key}``.
    """
    _table(
        key=key,
        data={"columns": columns, "rows": rows, "opens": on_click is not None},
        on_clicked_change=on_click or _nothing,
    )


def save_as_svg(charts: Mapping[str, str], *, key: str) -> None:
    """One line of buttons, each saving one chart of the page; Streamlit's toolbar knows PNG only.

    Args:
        charts: what each chart is called, by the key it was drawn with.
    """
    data = [{"key": chart, "title": title} for chart, title in charts.items()]
    _save(key=key, data={"charts": data})


def _nothing() -> None:
    """A component reports only what has a callback."""
