// Tables and views with their columns; a name that is clicked goes into the statement.
//
// data: things (name, kind, meaning, is_open, columns of name, type, comment) and a revision, with
// which the open ones open anew.

const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
};

const insert = (name) => (
    window.dispatchEvent(new CustomEvent("quantstore-insert", { detail: name })));

const button = (className, name, words) => {
    const made = element("button", className, words);
    made.type = "button";
    made.onclick = () => insert(name);
    return made;
};

const drawThing = (thing) => {
    const row = element("div", "thing");
    const details = element("details");
    details.open = thing.is_open;
    details.append(element("summary", "", thing.name), element("p", "small", thing.meaning));
    for (const column of thing.columns) {
        const line = button("column", column.name);
        line.append(element("span", "name", column.name), element("span", "small", column.type));
        if (column.comment) line.title = column.comment;
        line.setAttribute("aria-label", `Insert ${column.name}, ${column.type}`);
        details.append(line);
    }
    const add = button("add", thing.name, "+");
    add.title = `Insert ${thing.name}`;
    add.setAttribute("aria-label", add.title);
    row.append(details, add);
    return row;
};

export default function ({ data, parentElement }) {
    const root = parentElement.querySelector(".root");
    if (root.revision === data.revision) return;
    root.revision = data.revision;
    const search = element("input");
    search.type = "search";
    search.placeholder = "Find a table or column";
    search.setAttribute("aria-label", search.placeholder);
    const rows = data.things.map((thing) => [thing, drawThing(thing)]);
    const none = element("p", "small", "No table or column name contains this text.");
    const filter = () => {
        const wanted = search.value.trim().toLowerCase();
        let shown = 0;
        for (const [thing, row] of rows) {
            const isNamed = thing.name.toLowerCase().includes(wanted);
            let columns = 0;
            row.querySelectorAll(".column").forEach((line, index) => {
                const isHere = thing.columns[index].name.toLowerCase().includes(wanted);
                line.hidden = Boolean(wanted) && !isNamed && !isHere;
                columns += isHere ? 1 : 0;
            });
            row.hidden = Boolean(wanted) && !isNamed && !columns;
            row.querySelector("details").open = wanted ? !isNamed && columns > 0 : thing.is_open;
            shown += row.hidden ? 0 : 1;
        }
        none.hidden = shown > 0;
    };
    search.oninput = filter;
    root.replaceChildren(search, ...rows.map(([, row]) => row), none);
    filter();
}
