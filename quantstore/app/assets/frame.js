// What the browser does for every page: an honest history, files dropped anywhere, the tab's mark.

const DROP = "[data-testid=stFileUploaderDropzone]";

// Only a change that follows something the person did is an entry of the history.
function keepHistoryHonest(page) {
    // The address that was opened is an entry already.
    let isDeed = false;
    const act = () => { isDeed = true; };
    for (const kind of ["pointerdown", "keydown"]) page.addEventListener(kind, act, true);
    // Also by the keyboard, whose keys are no deed on the page.
    page.addEventListener("popstate", () => { isDeed = false; }, true);
    const push = page.history.pushState.bind(page.history);
    page.history.pushState = (...entry) => {
        if (isDeed) push(...entry);
        else page.history.replaceState(...entry);
        isDeed = false;
    };
}

const RESTORING_MS = 8000;

// Back and Forward lead to the place on a page where it was left, not only to the page.
function keepPlaces(page) {
    const places = new Map();
    const main = () => document.querySelector("[data-testid=stMain]");
    const isDrawn = () => document.querySelector("[data-testid=stApp]")
        ?.dataset.testScriptState === "notRunning";
    let path = page.location.pathname;
    let wanted = null;
    const forget = () => { wanted = null; };
    for (const kind of ["wheel", "touchstart", "pointerdown", "keydown"]) {
        page.addEventListener(kind, forget, { capture: true, passive: true });
    }
    document.addEventListener("scroll", (event) => {
        // What moves while a page is being drawn, nobody has moved.
        if (event.target !== main() || wanted !== null) return;
        if (page.location.pathname === path) places.set(page.location.href, main().scrollTop);
    }, { capture: true, passive: true });
    for (const name of ["pushState", "replaceState"]) {
        const change = page.history[name].bind(page.history);
        page.history[name] = (...entry) => {
            change(...entry);
            if (page.location.pathname === path && wanted === null) {
                places.set(page.location.href, main()?.scrollTop ?? 0);
            }
            path = page.location.pathname;
        };
    }
    page.addEventListener("popstate", () => {
        path = page.location.pathname;
        const place = { top: places.get(page.location.href) ?? 0 };
        wanted = place;
        const deadline = performance.now() + RESTORING_MS;
        let stillSince = null;
        // The page grows while it is drawn, and charts come last.
        const settle = () => {
            if (wanted !== place) return;
            const part = main();
            if (part && Math.abs(part.scrollTop - place.top) > 1) part.scrollTop = place.top;
            const isThere = part && isDrawn() && Math.abs(part.scrollTop - place.top) <= 1;
            stillSince = isThere ? stillSince ?? performance.now() : null;
            const isDone = stillSince !== null && performance.now() - stillSince > 1000;
            if (isDone || performance.now() > deadline) wanted = null;
            else page.requestAnimationFrame(settle);
        };
        settle();
    });
}

// The files below what was dropped. A model.onnx in a folder is named after the folder.
const UNNAMED = /^model(\.(onnx|tflite|safetensors|gguf))$/i;

async function filesOf(entry, folder = "") {
    if (entry.isFile) {
        const file = await new Promise((take, fail) => entry.file(take, fail));
        const unnamed = folder && UNNAMED.exec(file.name);
        return [unnamed ? new File([file], `${folder}${unnamed[1]}`) : file];
    }
    const reader = entry.createReader();
    const files = [];
    for (;;) {
        // A reader hands out a hundred entries at a time.
        const entries = await new Promise((take, fail) => reader.readEntries(take, fail));
        if (!entries.length) return files;
        for (const inner of entries) files.push(...await filesOf(inner, entry.name));
    }
}

async function dropped(transfer) {
    // Both lists are empty once the event is over.
    const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const plain = [...transfer.files];
    if (!entries.some((entry) => entry.isDirectory)) return plain;
    const files = [];
    for (const entry of entries) files.push(...await filesOf(entry));
    return files;
}

const DRAWING_MS = 10000;

// Where the sidebar takes files: a page that is still being drawn may not have it yet.
async function sidebarInput() {
    const deadline = performance.now() + DRAWING_MS;
    for (;;) {
        const input = document.querySelector(".st-key-sidebar_upload input[type=file]");
        if (input || performance.now() > deadline) return input;
        await new Promise((take) => setTimeout(take, 50));
    }
}

// What is dropped anywhere goes to the sidebar's box, unless it is dropped on a box of the page.
function takeFilesAnywhere(page) {
    const overlay = document.createElement("div");
    overlay.className = "quantstore-drop";
    overlay.hidden = true;
    overlay.textContent = "Drop to add";
    document.body.appendChild(overlay);
    const isBox = (event) => event.target.closest?.(DROP);
    const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
    const over = (event) => {
        if (!hasFiles(event)) return;
        overlay.hidden = Boolean(isBox(event));
        if (!isBox(event)) event.preventDefault();
    };
    page.addEventListener("dragenter", over, true);
    page.addEventListener("dragover", over, true);
    page.addEventListener("dragleave", (event) => {
        // Out of the window, not from one element into another.
        if (!event.relatedTarget) overlay.hidden = true;
    }, true);
    page.addEventListener("drop", async (event) => {
        overlay.hidden = true;
        if (!hasFiles(event) || isBox(event)) return;
        event.preventDefault();
        event.stopPropagation();
        const files = await dropped(event.dataTransfer);
        const input = await sidebarInput();
        if (!input || !files.length) return;
        const transfer = new DataTransfer();
        for (const file of files) transfer.items.add(file);
        input.files = transfer.files;
        input.dispatchEvent(new Event("change", { bubbles: true }));
    }, true);
}

// A mark before the title, from when a job ends in a hidden tab until somebody looks.
function markTitle(page) {
    const mark = "✓ ";
    let isMarked = false;
    const write = () => {
        const bare = document.title.startsWith(mark)
            ? document.title.slice(mark.length) : document.title;
        const title = isMarked ? mark + bare : bare;
        if (title !== document.title) document.title = title;
    };
    // Every run of the script writes the title anew.
    new MutationObserver(write).observe(document.head,
        { subtree: true, childList: true, characterData: true });
    document.addEventListener("visibilitychange", () => {
        if (document.hidden) return;
        isMarked = false;
        write();
    });
    page.quantstoreDone = () => {
        if (!document.hidden) return;
        isMarked = true;
        write();
    };
}

export default function ({ data, parentElement }) {
    const page = parentElement.ownerDocument.defaultView;
    if (!page.quantstoreFrame) {
        page.quantstoreFrame = { done: data.done };
        keepHistoryHonest(page);
        keepPlaces(page);
        takeFilesAnywhere(page);
        markTitle(page);
    }
    if (data.done > page.quantstoreFrame.done) page.quantstoreDone();
    page.quantstoreFrame.done = data.done;
}
