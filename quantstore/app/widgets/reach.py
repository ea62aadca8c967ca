"""Who can reach the app: whoever can may read any file that the server may read, given a path."""

import ipaddress

import streamlit as st

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})


def is_this_computer_only() -> bool:
    """Whether the server listens to this computer only and answers to no other name.

    Without an address it listens to everybody. Other names mean that something in front passes
    visitors on; without any, a page elsewhere could rebind its own name to this computer.
    """
    names = st.get_option("server.allowedHosts") or ()
    return is_loopback(st.get_option("server.address")) and bool(names) and {*names} <= LOCAL_NAMES


def is_loopback(address: str | None) -> bool:
    """Whether nobody but this computer can use the address."""
    if address in LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False
