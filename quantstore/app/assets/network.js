// Draws what Python placed: the network as a picture, and the same as a nested list of buttons.
const SVG = "http://www.w3.org/2000/svg";

const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
};

const shape = (tag, attributes, text) => {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    return made;
};

const colour = (band, use) => `var(--${(band || "untested").replace(" ", "-")}-${use})`;

const curve = (points) => {
    const [first, ...others] = points;
    let path = `M${first[0]},${first[1]}`;
    let before = first;
    for (const point of others) {
        const middle = (before[1] + point[1]) / 2;
        path += `C${before[0]},${middle} ${point[0]},${middle} ${point[0]},${point[1]}`;
        before = point;
    }
    return path;
};

const clickOf = (item) => (item.layer === null ? { block: item.block } : { layer: item.layer });

const opens = (item) => item.layer !== null || item.block !== null;

const frame = (box) => {
    const group = shape("g", { class: "opens" });
    const { x, y, width } = box;
    group.append(
        shape("rect", { class: "frame", x, y, width, height: box.height, rx: 6 }),
        shape("rect", { class: "head", x, y, width, height: 24 }),
        shape("text", { x: x + 10, y: y + 16, class: "small" }, `− ${box.label}`),
    );
    return group;
};

const join = (box) => {
    const group = shape("g", {});
    const r = box.width / 2;
    group.append(
        shape("circle", {
            cx: box.x + r, cy: box.y + r, r,
            style: `fill:var(--background);stroke:${box.band ? colour(box.band, "fill") : "var(--axis)"}`,
        }),
        shape("text", {
            x: box.x + r, y: box.y + r + 4, "text-anchor": "middle", class: "small",
        }, box.label),
    );
    return group;
};

const filled = (box) => {
    const group = shape("g", opens(box) ? { class: "opens" } : {});
    const { x, y, width, height } = box;
    const ink = box.is_end ? "var(--muted)" : colour(box.band, "ink");
    const tint = box.is_end ? "var(--background)" : colour(box.band, "tint");
    if (box.block !== null) {
        // A second sheet behind it: there is more inside.
        group.append(shape("rect", {
            x: x + 4, y: y + 4, width, height, rx: 6, style: `fill:${tint};stroke:var(--axis)`,
        }));
    }
    group.append(
        shape("rect", {
            x, y, width, height, rx: 6,
            style: `fill:${tint};stroke:${box.is_end ? "var(--grid)" : colour(box.band, "fill")}`,
        }),
        shape("text", {
            x: x + width / 2, y: y + (box.small ? 17 : 24), "text-anchor": "middle",
            style: `fill:${ink};font-weight:600`,
        }, box.label),
    );
    if (box.small) {
        group.append(shape("text", {
            x: x + width / 2, y: y + 32, "text-anchor": "middle", class: "small",
            style: `fill:${ink}`,
        }, box.small));
    }
    return group;
};

const picture = (data, send) => {
    const place = element("div", "picture");
    const svg = shape("svg", {
        width: data.width, height: data.height,
        viewBox: `-2 -2 ${data.width + 8} ${data.height + 8}`,
        role: "img", "aria-label": data.summary,
    });
    for (const line of data.lines) {
        const path = curve(line.through);
        svg.append(shape("path", { d: path }));
        if (line.title) {
            const target = shape("path", { d: path, class: "wide" });
            target.append(shape("title", {}, line.title));
            svg.append(target);
        }
    }
    for (const box of data.boxes) {
        const group = box.is_open ? frame(box) : box.is_join ? join(box) : filled(box);
        group.append(shape("title", {}, box.title));
        group.dataset.item = box.item;
        if (opens(box)) group.onclick = () => send(clickOf(box));
        svg.append(group);
    }
    place.append(svg);
    return place;
};

const rows = (items, level, send, mark) => {
    const list = element("ul");
    for (const item of items) {
        const line = element("li");
        const row = element("div", "row");
        line.style.setProperty("--level", String(level));
        const name = opens(item) ? element("button") : element("span", "plain");
        if (item.block !== null) {
            name.setAttribute("aria-expanded", String(item.is_open));
            const sign = element("span", "mark", item.is_open ? "▾" : "▸");
            sign.setAttribute("aria-hidden", "true");
            name.append(sign);
        }
        name.title = item.title;
        name.append(document.createTextNode(item.label));
        if (item.small) name.append(element("span", "small", item.small));
        if (opens(item)) {
            name.dataset.item = item.item;
            name.onclick = () => send(clickOf(item));
        }
        row.append(name);
        if (item.verdict) {
            const chip = element("span", "chip", item.verdict);
            chip.style.background = colour(item.band, "tint");
            chip.style.color = colour(item.band, "ink");
            row.append(chip);
        }
        for (const [kind, is_marked] of [["mouseenter", true], ["mouseleave", false]]) {
            row.addEventListener(kind, () => mark(item.item, is_marked));
        }
        line.append(row);
        if (item.children.length) line.append(rows(item.children, level + 1, send, mark));
        list.append(line);
    }
    return list;
};

export default function ({ data, parentElement, setTriggerValue }) {
    const root = parentElement.querySelector(".root");
    const former = {
        picture: root.querySelector(".picture"), list: root.querySelector(".list"),
        focused: root.getRootNode().activeElement?.dataset?.item,
    };
    const scrolled = [former.picture, former.list].map(
        (place) => (place && root.dataset.model === data.model
            ? [place.scrollLeft, place.scrollTop] : null));
    const send = (click) => setTriggerValue("clicked", click);

    const tools = element("div", "tools");
    for (const [label, click] of [["Open all", { all: true }], ["Close all", { all: false }]]) {
        const button = element("button", "", label);
        button.onclick = () => send(click);
        tools.append(button);
    }
    const drawing = picture(data, send);
    const mark = (item, is_marked) => {
        const box = drawing.querySelector(`[data-item="${item}"]`);
        if (box) box.classList.toggle("marked", is_marked);
    };
    const list = element("nav", "list");
    list.setAttribute("aria-label", "Blocks and layers of the network");
    list.append(rows(data.tree, 0, send, mark));
    const both = element("div", "both");
    both.append(drawing, list);
    root.replaceChildren(tools, both);

    // What is opened or closed redraws everything: stay where the person was.
    root.dataset.model = data.model;
    [drawing, list].forEach((place, index) => {
        if (scrolled[index]) [place.scrollLeft, place.scrollTop] = scrolled[index];
        else if (index === 0 && data.boxes.length) {
            const [first] = data.boxes;
            place.scrollLeft = first.x + first.width / 2 - place.clientWidth / 2;
        }
        // Where there is more than fits, the keyboard must reach it.
        if (place.scrollHeight > place.clientHeight || place.scrollWidth > place.clientWidth) {
            place.tabIndex = 0;
        }
    });
    if (former.focused) {
        list.querySelector(`button[data-item="${CSS.escape(former.focused)}"]`)?.focus(
            { preventScroll: true });
    }
}
