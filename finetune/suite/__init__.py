"""One evaluation suite for every model: a folder, a hub id, or a server. `hhh eval PART --model M --report DIR`."""
