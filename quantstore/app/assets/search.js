const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
};

// Typing that goes on is no question yet.
const PAUSE_MS = 150;

const build = (root, box) => {
    const input = element("input");
    input.type = "search";
    input.placeholder = box.data.label;
    input.autocomplete = "off";
    input.spellcheck = false;
    for (const [name, value] of [
        ["role", "combobox"], ["aria-label", box.data.label], ["aria-autocomplete", "list"],
        ["aria-expanded", "false"], ["aria-controls", "results"], ["aria-keyshortcuts", "/"],
    ]) input.setAttribute(name, value);
    const key = element("kbd", "", "/");
    key.setAttribute("aria-hidden", "true");
    const results = element("div", "results");
    results.id = "results";
    results.hidden = true;
    results.setAttribute("role", "listbox");
    results.setAttribute("aria-label", box.data.label);
    root.replaceChildren(input, key, results);

    let timer;
    let opensFirst = false;
    let active = -1;
    const options = () => [...results.querySelectorAll(".option")];
    const typed = () => input.value.trim();
    const activate = (index) => {
        const all = options();
        active = all.length ? (index + all.length) % all.length : -1;
        all.forEach((option, position) => {
            option.classList.toggle("active", position === active);
            option.setAttribute("aria-selected", String(position === active));
        });
        if (active < 0) input.removeAttribute("aria-activedescendant");
        else {
            input.setAttribute("aria-activedescendant", all[active].id);
            all[active].scrollIntoView({ block: "nearest" });
        }
    };
    const show = (isOpen) => {
        results.hidden = !isOpen;
        input.setAttribute("aria-expanded", String(isOpen));
    };
    const close = () => { opensFirst = false; show(false); };
    const ask = () => {
        clearTimeout(timer);
        if (typed() !== box.data.query) box.setStateValue("query", typed());
    };
    const open = (target) => {
        clearTimeout(timer);
        input.value = "";
        close();
        input.blur();
        box.setTriggerValue("opened", target);
    };

    box.draw = () => {
        if (!typed()) { close(); return; }
        // What has come answers what was typed before.
        if (box.data.query !== typed()) return;
        results.replaceChildren();
        let number = 0;
        for (const group of box.data.groups) {
            const part = element("div");
            part.setAttribute("role", "group");
            part.setAttribute("aria-label", group.title);
            const title = element("div", "title", group.title);
            title.setAttribute("aria-hidden", "true");
            part.appendChild(title);
            for (const hit of group.hits) {
                const option = element("div", "option");
                option.id = `option-${number++}`;
                option.setAttribute("role", "option");
                option.append(hit.title, " ", element("span", "small", hit.small));
                option.onclick = () => open(hit.target);
                part.appendChild(option);
            }
            results.appendChild(part);
        }
        if (box.data.hint) results.appendChild(element("div", "hint", box.data.hint));
        show(root.getRootNode().activeElement === input);
        activate(0);
        if (opensFirst && number) options()[0].click();
        opensFirst = false;
    };

    input.oninput = () => {
        opensFirst = false;
        clearTimeout(timer);
        if (!typed()) close();
        timer = setTimeout(ask, PAUSE_MS);
        if (typed() && typed() === box.data.query) box.draw();
    };
    input.onfocus = () => { if (typed()) box.draw(); };
    input.onblur = close;
    // A click in the list must not take the keyboard away before it counts.
    results.onmousedown = (event) => event.preventDefault();
    input.onkeydown = (event) => {
        if (event.key === "ArrowDown" || event.key === "ArrowUp") {
            event.preventDefault();
            if (results.hidden && typed()) box.draw();
            else activate(active + (event.key === "ArrowDown" ? 1 : -1));
        } else if (event.key === "Enter") {
            event.preventDefault();
            if (!typed()) return;
            if (!results.hidden && box.data.query === typed()) options()[active]?.click();
            else { opensFirst = true; ask(); box.draw(); }
        } else if (event.key === "Escape") {
            event.stopPropagation();
            if (results.hidden) input.value = "";
            close();
        }
    };
    box.input = input;
};

// A slash where nothing is typed goes to the search.
const listen = (root) => {
    const follow = (event) => {
        if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
        const at = event.composedPath()[0];
        if (at.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(at.tagName)) return;
        event.preventDefault();
        const { input } = root.box;
        // What is in sight already must not move the page.
        input.focus({ preventScroll: true });
        const { top, bottom } = input.getBoundingClientRect();
        if (bottom < 0 || top > window.innerHeight) input.scrollIntoView({ block: "nearest" });
    };
    document.addEventListener("keydown", follow);
    return () => document.removeEventListener("keydown", follow);
};

export default function ({ data, parentElement, setStateValue, setTriggerValue }) {
    const root = parentElement.querySelector(".root");
    const isNew = !root.box;
    root.box ??= {};
    Object.assign(root.box, { data, setStateValue, setTriggerValue });
    if (isNew) build(root, root.box);
    root.box.draw();
    // Each call ends what the call before has left.
    root.stopListening?.();
    root.stopListening = listen(root);
    return root.stopListening;
}
