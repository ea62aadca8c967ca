// Draws the charts that lie in this file beside their places; nothing is loaded. Colours are CSS
// properties of the page, so that a chart follows the theme and the printer by itself.
"use strict";

const unpackedColumn = ({ values, different, index }) =>
    values ?? index.map((place) => different[place]);

const unpacked = (spec) => {
    const datasets = {};
    for (const [name, { rows, columns }] of Object.entries(spec.datasets)) {
        const whole = Object.entries(columns).map(([key, column]) => [key, unpackedColumn(column)]);
        datasets[name] = Array.from({ length: rows }, (_, row) =>
            Object.fromEntries(whole.map(([key, values]) => [key, values[row]])));
    }
    return { ...spec, datasets };
};

const options = {
    renderer: "svg",
    actions: false,
    // Expressions are interpreted: the page forbids eval.
    ast: true,
    defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
};

const save = (href, name) => {
    const link = document.createElement("a");
    link.href = href;
    link.download = name;
    link.click();
};

const saveText = (words, type, name) => {
    const href = URL.createObjectURL(new Blob([words], { type }));
    save(href, name);
    setTimeout(() => URL.revokeObjectURL(href), 10_000);
};

// Outside this page its colours must be colours.
const coloured = (spec) => {
    const style = getComputedStyle(document.documentElement);
    const written = JSON.stringify(spec).replace(
        /var\((--[\w-]+)\)/g, (_, name) => style.getPropertyValue(name).trim());
    return { ...JSON.parse(written), background: style.getPropertyValue("--background").trim() };
};

const saveChart = async (spec, width, type, name) => {
    const place = document.createElement("div");
    place.style.cssText = `position:absolute;left:-9999px;width:${width}px`;
    document.body.append(place);
    const { view, finalize } = await vegaEmbed(place, coloured(spec), options);
    if (type === "svg") saveText(await view.toSVG(), "image/svg+xml", `${name}.svg`);
    else save(await view.toImageURL("png", 2), `${name}.png`);
    finalize();
    place.remove();
};

const addButtons = (figure, plot, spec) => {
    const line = document.createElement("figcaption");
    line.className = "save";
    for (const type of ["svg", "png"]) {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = `Save as ${type.toUpperCase()}`;
        button.onclick = () => saveChart(spec, plot.clientWidth, type, `quantstore-${figure.id}`);
        line.append(button);
    }
    figure.append(line);
};

// A mark is a layer: a click shows its row, where the table has it.
const showLayer = (id) => {
    const row = document.getElementById(`layer-${id}`);
    if (!row) return;
    for (const other of document.querySelectorAll("tr.found")) other.classList.remove("found");
    const folded = row.closest("details");
    if (folded) folded.open = true;
    row.classList.add("found");
    row.scrollIntoView({ block: "center" });
};

const draw = async (script) => {
    const figure = document.getElementById(script.dataset.chart);
    const plot = figure.querySelector(".plot");
    const spec = unpacked(JSON.parse(script.textContent));
    try {
        const { view } = await vegaEmbed(plot, spec, options);
        view.addEventListener("click", (_, item) => {
            if (item?.datum?.layer_id !== undefined) showLayer(item.datum.layer_id);
        });
        addButtons(figure, plot, spec);
    } catch (error) {
        plot.textContent = `This chart could not be drawn (${error.message}). ${spec.description}`;
    }
};

const start = async () => {
    for (const plot of document.querySelectorAll(".plot")) plot.replaceChildren();
    for (const button of document.querySelectorAll("[data-save]")) {
        const table = document.querySelector(`[data-table="${button.dataset.save}"]`);
        button.onclick = () => saveText(
            JSON.parse(table.textContent), "text/csv", `quantstore-${button.dataset.save}.csv`);
    }
    for (const script of document.querySelectorAll("script[data-chart]")) await draw(script);
    document.documentElement.dataset.drawn = "true";
};

start();
