// Tells the server, once for each arrival, that nobody is typing and no dialog is open.
const TYPED_LATELY_MS = 15000;
const TEXT = "textarea, [contenteditable=true],"
    + " input:not([type=checkbox], [type=radio], [type=file], [type=button])";

export default function ({ data, parentElement, setTriggerValue }) {
    const page = parentElement.ownerDocument.defaultView;
    if (!page.quantstoreArrival) {
        const state = { announced: "", typedIn: null, typedAt: 0 };
        page.quantstoreArrival = state;
        page.addEventListener("input", (event) => {
            // Inside a component the event tells its host; the box itself comes first.
            [state.typedIn] = event.composedPath();
            state.typedAt = Date.now();
        }, true);
    }
    const state = page.quantstoreArrival;
    if (!data.arrival || state.announced === data.arrival) return;
    state.announced = data.arrival;
    // An empty box is one whose words have just been sent off.
    const holdsWords = (box) => box?.isConnected && box.matches(TEXT)
        && (box.value ?? box.textContent) !== "";
    let at = document.activeElement;
    while (at?.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
    const isTyping = holdsWords(at)
        || (Date.now() - state.typedAt < TYPED_LATELY_MS && holdsWords(state.typedIn));
    if (isTyping || document.querySelector("[role=dialog]")) return;
    setTriggerValue("free", data.arrival);
}
