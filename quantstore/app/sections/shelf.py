"""The table of the Models page: rows to mark, names that open, heads that sort.

As in ``app.widgets.components``, every string is set by ``textContent`` and colours follow the
theme.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from quantstore.app.widgets import components

_CSS = """
.scroll { overflow-x: auto; }
th button:hover { color: var(--text); }
th button[aria-pressed="true"] { color: var(--text); font-weight: 600; }
td:first-child, th:first-child { width: 28px; padding-left: 6px; }
td:last-child, th:last-child { padding-right: 6px; }
input[type=checkbox] {
    width: 16px; height: 16px; margin: 2px 0 0; accent-color: var(--accent); cursor: pointer;
}
input:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
tr.marked td { background: color-mix(in srgb, var(--grid) 45%, transparent); }
.name { overflow-wrap: anywhere; min-width: 150px; }
.name > button { display: inline-block; min-height: 24px; min-width: 24px; }
.name > .open { font-weight: 600; }
.name > .edit {
    margin-left: 8px; font-size: 12px; color: var(--muted);
    text-decoration: underline; text-underline-offset: 2px;
}
.name > button:hover { color: var(--accent); }
.note {
    display: -webkit-box; -webkit-line-clamp: 2; -webkit-box-orient: vertical; overflow: hidden;
    white-space: pre-line;
}
.tags { display: flex; flex-wrap: wrap; gap: 4px; margin-top: 3px; }
.tags button {
    font-size: 12px; border: 1px solid var(--axis); border-radius: 9px; padding: 0 8px;
    line-height: 18px; overflow-wrap: anywhere;
}
.tags button[aria-pressed="true"] { border-color: var(--accent); color: var(--accent); }
.chip {
    display: inline-block; padding: 1px 8px; border-radius: 5px; font-size: 13px; font-weight: 600;
}
.nowrap { white-space: nowrap; }
.care { color: var(--at-risk-ink); }
.narrow { display: none; }
@container (max-width: 760px) { .wide { display: none; } .narrow { display: block; } }
"""

_JS = """
const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
};

export default function ({ data, parentElement, setTriggerValue }) {
    const root = parentElement.querySelector(".root");
    const say = (what) => setTriggerValue("clicked", what);
    // What is redrawn loses the keyboard's place; a name for each control gives it back.
    const focused = parentElement.activeElement?.dataset?.place;
    const control = (made, place, onclick) => {
        made.dataset.place = place;
        made.onclick = onclick;
        return made;
    };
    const marked = new Set(data.marked);
    const toMark = (names, isOn) => {
        for (const name of names) isOn ? marked.add(name) : marked.delete(name);
        say({ mark: [...marked] });
    };

    const table = element("table");
    const head = element("tr");
    const box = element("th");
    const names = data.rows.map((row) => row.name);
    const all = element("input");
    all.type = "checkbox";
    all.setAttribute("aria-label", "Mark every model of this page");
    all.checked = names.length > 0 && names.every((name) => marked.has(name));
    all.indeterminate = !all.checked && names.some((name) => marked.has(name));
    box.appendChild(control(all, "all", () => toMark(names, all.checked)));
    head.appendChild(box);
    for (const column of data.columns) {
        const cell = element("th", `${column.number ? "number " : ""}${column.wide ? "wide" : ""}`);
        cell.scope = "col";
        if (column.sort) {
            const isChosen = column.sort === data.order;
            const button = element("button", "", column.title);
            if (isChosen) cell.setAttribute("aria-sort", column.sort === "name"
                ? "ascending" : "descending");
            button.setAttribute("aria-pressed", String(isChosen));
            button.title = `Sort by ${column.sort}`;
            cell.appendChild(control(button, `sort ${column.sort}`,
                () => say({ sort: column.sort })));
        } else {
            cell.textContent = column.title;
        }
        head.appendChild(cell);
    }
    const thead = element("thead");
    thead.appendChild(head);

    const two = (className, text, small, smallClass) => {
        const cell = element("td", className);
        cell.appendChild(element("div", "", text));
        if (small) cell.appendChild(element("div", `small ${smallClass || ""}`, small));
        return cell;
    };
    const body = element("tbody");
    for (const row of data.rows) {
        const line = element("tr", marked.has(row.name) ? "marked" : "");
        const mark = element("td");
        const check = element("input");
        check.type = "checkbox";
        check.checked = marked.has(row.name);
        check.setAttribute("aria-label", `Mark ${row.title}`);
        mark.appendChild(control(check, `mark ${row.name}`,
            () => toMark([row.name], check.checked)));
        const name = element("td", "name");
        const open = element("button", "open", row.title);
        open.title = "Open the model";
        const edit = element("button", "edit", "Edit");
        edit.title = "Rename, tag, note, measure again or remove";
        edit.setAttribute("aria-label", `Edit ${row.title}`);
        name.append(
            control(open, `open ${row.name}`, () => say({ open: row.name })),
            control(edit, `edit ${row.name}`, () => say({ edit: row.name })),
        );
        if (row.file.care) name.appendChild(element("div", "small care narrow", row.file.text));
        if (row.caveat) name.appendChild(element("div", "small", row.caveat));
        if (row.note) name.appendChild(element("div", "small note", row.note));
        if (row.tags.length) {
            const tags = element("div", "tags");
            for (const tag of row.tags) {
                const pill = element("button", "", tag.title);
                const isChosen = data.tags.includes(tag.name);
                pill.setAttribute("aria-pressed", String(isChosen));
                pill.title = isChosen ? "Show all models again" : "Show the models with this tag";
                tags.appendChild(control(pill, `tag ${row.name} ${tag.name}`,
                    () => say({ tag: isChosen ? null : tag.name })));
            }
            name.appendChild(tags);
        }
        const verdict = element("td");
        const chip = element("span", "chip", row.verdict.text);
        const band = row.verdict.band.replace(" ", "-");
        chip.style.background = `var(--${band}-tint)`;
        chip.style.color = `var(--${band}-ink)`;
        verdict.append(chip, element("div", "small", row.verdict.small));
        line.append(
            mark, name, verdict,
            two("number nowrap", row.layers, row.weights),
            two("number nowrap wide", row.bytes),
            two("number nowrap wide", row.share),
            two("wide", row.when, row.file.text, row.file.care ? "care" : ""),
        );
        body.appendChild(line);
    }
    table.append(thead, body);
    const scroll = element("div", "scroll");
    scroll.appendChild(table);
    root.replaceChildren(scroll);
    if (focused) {
        [...root.querySelectorAll("[data-place]")]
            .find((one) => one.dataset.place === focused)?.focus();
    }
}
"""

_shelf = components.register("quantstore_shelf", css=_CSS, js=_JS)


def draw(
    *,
    columns: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    marked: Sequence[str],
    order: str,
    tags: Sequence[str],
    key: str,
    on_click: Callable[[], None],
) -> None:
    """Models, one per row.

    Args:
        columns: ``title``, ``sort`` (None where it cannot be sorted by), ``number``, ``wide``
            (hidden where the table is narrow); the head of the check boxes comes by itself.
        rows: ``name``, ``title``, ``caveat``, ``note``, ``tags`` (``name`` and ``title`` of each),
            ``verdict`` (``band``, ``text``, ``small``), ``layers``, ``weights``, ``bytes``,
            ``share``, ``when``, ``file`` (``text``, ``care``).
        marked: names, also of other pages of the table.
        tags: the chosen ones.
        on_click: reads ``st.session_state[key].clicked``, one of ``{"open": name}``,
            ``{"edit": name}``, ``{"mark": names}``, ``{"sort": order}``, ``{"tag": name or null}``.
    """
    _shelf(
        key=key,
        data={
            "columns": columns,
            "rows": rows,
            "marked": list(marked),
            "order": order,
            "tags": list(tags),
        },
        on_clicked_change=on_click,
    )
