"""What the browser needs besides the pages: honest Back and Forward.

Streamlit writes an entry into the browser's history whenever the address changes: two where a click
opens another page (first the new query, then the new path), and one more where the page then spells
out what it shows. Back would lead to places where nobody has been. Here only a change that follows
something the person did is an entry; any other change corrects the entry that is there.
"""

import streamlit as st

_JS = """
export default function ({ parentElement }) {
    const page = parentElement.ownerDocument.defaultView;
    if (page.quantstoreFrame) return;
    page.quantstoreFrame = true;
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
"""

_frame = st.components.v2.component("quantstore_frame", html="<i>\n</i>", js=_JS)


def draw() -> None:
    """Once a run, anywhere; it shows nothing."""
    _frame(key="frame", height=1)
