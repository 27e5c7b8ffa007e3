"""The rooms of the package and who imports whom, for graphviz.

    pip install grimp && python docs/rooms.py | dot -Tsvg -o docs/rooms.svg

An import that goes where other arrows lead anyway is left out, and so is the ground (errors, world, numbers and the
like), which everybody may import. An arrow in a circle would be red.
"""

from __future__ import annotations

import grimp

HOUSE = "dermsearch"
WINGS = [f"{HOUSE}.{wing}" for wing in ("search", "data", "results")]  # shown with the rooms within

graph = grimp.build_graph(HOUSE, cache_dir=None)
rooms = set()
for module in sorted(graph.modules):
    wing, _, _ = module.rpartition(".")
    if module in WINGS:  # a room of its own where its __init__ imports something
        rooms |= {module} if graph.find_modules_directly_imported_by(module) else set()
    elif wing in WINGS or (wing == HOUSE and graph.find_children(module)):
        rooms.add(module)
        if graph.find_children(module):
            graph.squash_module(module)

below = {room: graph.find_upstream_modules(room) for room in rooms}  # what a room imports, by whatever way
print("digraph { ranksep=0.45; fontname=Helvetica;")
print('node [shape=box style="rounded,filled" fillcolor=white fontname=Helvetica];')
for room in sorted(rooms):
    wing = next((w for w in WINGS if f"{room}.".startswith(f"{w}.")), HOUSE)
    name, title = room.removeprefix(f"{wing}.").removeprefix(f"{HOUSE}."), wing.removeprefix(f"{HOUSE}.")
    node = f'"{room}" [label="{name}"];'
    print(node if wing == HOUSE else f'subgraph "cluster {title}" {{ label={title}; bgcolor=gray95; {node} }}')
for room in sorted(rooms):
    imported = graph.find_modules_directly_imported_by(room) & rooms - {room}
    for other in sorted(imported):
        if room in below[other]:
            print(f'"{room}" -> "{other}" [color=red];')
        elif not any(other in below[way] and way not in below[other] for way in imported - {other}):
            print(f'"{room}" -> "{other}";')
print("}")
