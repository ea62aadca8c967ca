// The statement of the SQL page: a text box that completes the names of tables and columns.
//
// data: statement and revision (the box takes the statement over when the revision is a new one),
// tables (name, kind, columns of name and type), words (keywords and functions), label, is_running.
// Reports "run" with the text. Listens on the window for "quantstore-insert", whose detail is a
// name that was clicked in the schema.

const MOST_SHOWN = 9;
const WORD = /[\p{L}\p{N}_]*$/u;

const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
};

// What a name in a statement stands for: tables by their own names and by their aliases.
const tablesBehind = (text, tables) => {
    const found = new Map();
    for (const table of tables) {
        const pattern = new RegExp(
            `\\b${table.name}\\b(?:\\s+(?:as\\s+)?([\\p{L}_][\\p{L}\\p{N}_]*))?`, "giu");
        for (const match of text.matchAll(pattern)) {
            found.set(table.name, table);
            if (match[1]) found.set(match[1].toLowerCase(), table);
        }
    }
    return found;
};

// What may stand at the end of this text, best first; nothing where one would only be in the way.
const suggestions = (before, after, data, isAsked) => {
    const prefix = before.match(WORD)[0];
    const rest = before.slice(0, before.length - prefix.length);
    const line = rest.slice(rest.lastIndexOf("\n") + 1);
    const isQuoted = (line.match(/'/g) ?? []).length % 2 === 1;
    if (line.includes("--") || isQuoted || /^\d/.test(prefix)) return { prefix, items: [] };
    const named = tablesBehind(before + after, data.tables);
    const column = (table) => (one) => (
        { name: one.name, kind: "column", more: `${table.name} · ${one.type}` });
    const qualifier = rest.match(/([\p{L}_][\p{L}\p{N}_]*)\.$/u);
    let candidates;
    if (qualifier) {
        const table = named.get(qualifier[1].toLowerCase());
        candidates = table ? table.columns.map(column(table)) : [];
    } else if (prefix.length < 2 && !isAsked && !/\b(from|join)\s+$/i.test(rest)) {
        return { prefix, items: [] };
    } else {
        const tables = data.tables.map(
            (table) => ({ name: table.name, kind: "table", more: table.kind }));
        const isTablePlace = /\b(from|join)\s+$/i.test(rest);
        const near = [...new Set(named.values())];
        const far = data.tables.filter((table) => !near.includes(table));
        const words = data.words.map((word) => ({ name: word, kind: "word", more: "" }));
        candidates = isTablePlace ? tables : [
            ...near.flatMap((table) => table.columns.map(column(table))), ...words, ...tables,
            ...far.flatMap((table) => table.columns.map(column(table)))];
    }
    const wanted = prefix.toLowerCase();
    const seen = new Set();
    const items = [[], []];
    for (const candidate of candidates) {
        const name = candidate.name.toLowerCase();
        const place = name.indexOf(wanted);
        // A word of the language is only completed, a name also found by its middle.
        if (place < 0 || (place > 0 && candidate.kind === "word") || seen.has(name)) continue;
        seen.add(name);
        items[place === 0 ? 0 : 1].push(candidate);
    }
    const all = [...items[0], ...items[1]].slice(0, MOST_SHOWN);
    const isComplete = all.length > 0 && all[0].name.toLowerCase() === wanted;
    return { prefix, items: isComplete && !isAsked ? [] : all };
};

// A name that is no plain word must be quoted.
const written = (name) => (
    /^[a-z_][a-z0-9_]*$/i.test(name) ? name : `"${name.replaceAll('"', '""')}"`);

const build = (root) => {
    const frame = element("div", "frame");
    const box = element("textarea");
    box.spellcheck = false;
    box.wrap = "off";
    box.setAttribute("autocapitalize", "off");
    box.setAttribute("autocomplete", "off");
    box.setAttribute("aria-label", "SQL query");
    box.setAttribute("aria-autocomplete", "list");
    box.setAttribute("aria-haspopup", "listbox");
    box.setAttribute("aria-controls", "suggestions");
    box.setAttribute("aria-describedby", "keys");
    const list = element("div", "list");
    list.id = "suggestions";
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-label", "Suggestions");
    list.hidden = true;
    const status = element("div", "unseen");
    status.setAttribute("aria-live", "polite");
    // Of the same font: as wide as ten characters of the box.
    const ruler = element("span", "ruler", "0000000000");
    frame.append(box, list, ruler);
    const bar = element("div", "bar");
    const run = element("button", "run", "Run");
    run.type = "button";
    const keys = element("span", "keys");
    keys.id = "keys";
    bar.append(run, keys);
    root.replaceChildren(frame, bar, status);
    const editor = {
        box, list, run, keys, status, ruler, items: [], prefix: "", active: 0, revision: null,
    };

    const close = () => {
        list.hidden = true;
        editor.items = [];
        box.removeAttribute("aria-activedescendant");
    };
    const mark = (index) => {
        editor.active = index;
        [...list.children].forEach((one, place) => {
            one.setAttribute("aria-selected", String(place === index));
        });
        list.children[index].scrollIntoView({ block: "nearest" });
        box.setAttribute("aria-activedescendant", list.children[index].id);
    };
    const fit = () => {
        const lines = box.value.split("\n").length;
        box.rows = Math.max(6, Math.min(24, lines + 1));
    };
    // Typed by the browser itself, so that it can be undone.
    const type = (text) => {
        if (!document.execCommand("insertText", false, text)) {
            box.setRangeText(text, box.selectionStart, box.selectionEnd, "end");
            box.dispatchEvent(new Event("input"));
        }
    };
    const accept = (index) => {
        const item = editor.items[index];
        const end = box.selectionStart;
        box.focus();
        box.setSelectionRange(end - editor.prefix.length, end);
        editor.isAccepting = true;
        type(item.kind === "word" ? item.name : written(item.name));
        editor.isAccepting = false;
        close();
    };
    const place = () => {
        const before = box.value.slice(0, box.selectionStart - editor.prefix.length);
        const lines = before.split("\n");
        const style = getComputedStyle(box);
        const width = ruler.getBoundingClientRect().width / 10;
        const left = parseFloat(style.paddingLeft) + lines.at(-1).length * width - box.scrollLeft;
        const top = parseFloat(style.paddingTop) + lines.length * parseFloat(style.lineHeight);
        list.style.left = `${Math.max(0, Math.min(left, box.clientWidth - 300))}px`;
        list.style.top = `${top - box.scrollTop + 3}px`;
    };
    const suggest = (isAsked) => {
        if (box.selectionStart !== box.selectionEnd) return close();
        const [before, after] = [
            box.value.slice(0, box.selectionStart), box.value.slice(box.selectionStart)];
        const { prefix, items } = suggestions(before, after, editor.data, isAsked);
        if (!items.length) return close();
        Object.assign(editor, { prefix, items });
        list.replaceChildren(...items.map((item, index) => {
            const option = element("div", "option");
            option.id = `suggestion-${index}`;
            option.setAttribute("role", "option");
            option.append(element("span", "name", item.name), element("span", "more", item.more));
            // Pressing must not take the focus from the box.
            option.onmousedown = (event) => { event.preventDefault(); accept(index); };
            return option;
        }));
        list.hidden = false;
        place();
        mark(0);
        const first = items[0].name;
        status.textContent = `${items.length} suggestion${items.length > 1 ? "s" : ""}: ${first}`;
    };

    editor.send = () => {
        close();
        if (!editor.data.is_running) editor.report("run", box.value);
    };
    editor.take = (statement) => {
        box.value = statement;
        fit();
        close();
    };
    box.oninput = () => {
        fit();
        if (!editor.isAccepting) suggest(false);
    };
    box.onkeydown = (event) => {
        const isOpen = !list.hidden;
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) editor.send();
        else if (event.key === " " && event.ctrlKey) suggest(true);
        else if (isOpen && event.key === "Escape") close();
        else if (isOpen && (event.key === "Enter" || event.key === "Tab")) accept(editor.active);
        else if (isOpen && event.key === "ArrowDown") {
            mark((editor.active + 1) % editor.items.length);
        } else if (isOpen && event.key === "ArrowUp") {
            mark((editor.active + editor.items.length - 1) % editor.items.length);
        } else {
            if (["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) close();
            return;
        }
        event.preventDefault();
    };
    box.onblur = close;
    box.onscroll = () => { if (!list.hidden) place(); };
    run.onclick = editor.send;
    editor.insert = (event) => {
        close();
        box.focus();
        const before = box.value.slice(0, box.selectionStart);
        // Names never grow together.
        const gap = /[\p{L}\p{N}_)]$/u.test(before) ? " " : "";
        editor.isAccepting = true;
        type(gap + written(String(event.detail)));
        editor.isAccepting = false;
    };
    return editor;
};

export default function ({ data, parentElement, setTriggerValue }) {
    const root = parentElement.querySelector(".root");
    // New data calls this once more: the box, and what is being typed there, stay.
    root.editor ??= build(root);
    const editor = root.editor;
    editor.data = data;
    editor.report = setTriggerValue;
    editor.run.disabled = data.is_running;
    editor.keys.textContent = data.label;
    if (data.revision !== editor.revision) {
        editor.revision = data.revision;
        editor.take(data.statement);
    }
    window.removeEventListener("quantstore-insert", editor.listening);
    editor.listening = editor.insert;
    window.addEventListener("quantstore-insert", editor.listening);
    return () => window.removeEventListener("quantstore-insert", editor.listening);
}
