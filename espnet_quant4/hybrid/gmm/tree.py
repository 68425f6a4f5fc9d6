"""Decision tree of triphone states, and Kaldi's bytes of it.

Young, Odell and Woodland, "Tree-based state tying for high accuracy acoustic modelling", 1994: states
of triphones are split by questions about their neighbours, the one that raises the likelihood of the
data most first, with one Gaussian of diagonal covariance a leaf.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

Window = tuple[int, int, int]
CONTEXT_WIDTH, CENTRAL_POSITION = 3, 1
_PDF_CLASS = -1  # Kaldi's key of the state


@dataclass
class Statistics:
    """Sums over frames, of one Gaussian.

    Attributes:
        count: frames.
        total: ``(dim,)`` float64.
        squares: ``(dim,)`` float64.
    """

    count: float
    total: np.ndarray
    squares: np.ndarray

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(
            self.count + other.count, self.total + other.total, self.squares + other.squares
        )

    @classmethod
    def sum(cls, parts: Sequence[Statistics]) -> Statistics:
        """Return the sum of at least one."""
        return cls(
            sum(part.count for part in parts),
            np.sum([part.total for part in parts], axis=0),
            np.sum([part.squares for part in parts], axis=0),
        )

    def variance(self, floor: float = 0.01) -> np.ndarray:
        """Return ``(dim,)``, not below a floor."""
        mean = self.total / self.count
        return np.maximum(self.squares / self.count - mean**2, floor)

    def log_likelihood(self) -> float:
        """Return that of the frames under their own Gaussian."""
        if self.count <= 0:
            return 0.0
        return float(-0.5 * self.count * np.sum(np.log(2 * np.pi * self.variance()) + 1))


@dataclass
class Node:
    """A node of a state's tree: a leaf with a pdf, or a question with two children.

    Attributes:
        pdf: of a leaf.
        position: 0 asks about the left neighbour, 2 about the right one.
        phones: for which the answer is yes.
        yes: child.
        no: child.
    """

    pdf: int = -1
    position: int = -1
    phones: tuple[int, ...] = ()
    yes: Node | None = None
    no: Node | None = None

    @property
    def is_leaf(self) -> bool:
        """Whether it has a pdf."""
        return self.yes is None


@dataclass
class Tree:
    """Trees of all states of all phones.

    Attributes:
        roots: of each ``(phone, state)``.
        statistics: of each pdf.
    """

    roots: dict[tuple[int, int], Node]
    statistics: list[Statistics] = field(default_factory=list)

    @property
    def num_pdfs(self) -> int:
        """Number of leaves."""
        return len(self.statistics)

    def pdf(self, window: Window, state: int) -> int:
        """Return the pdf of a state of a phone between its neighbours; 0 stands for none."""
        node = self.roots[window[1], state]
        while node.yes is not None and node.no is not None:
            node = node.yes if window[node.position] in node.phones else node.no
        return node.pdf

    def to_kaldi(self) -> bytes:
        """Return Kaldi's ``ContextDependency`` in binary, without the leading mark."""
        by_phone: dict[int, dict[int, bytes]] = {}
        for (phone, state), root in self.roots.items():
            by_phone.setdefault(phone, {})[state] = _node_bytes(root)
        tables = {phone: _table(_PDF_CLASS, states) for phone, states in by_phone.items()}
        return b"".join(
            (
                b"ContextDependency ",
                _int(CONTEXT_WIDTH),
                _int(CENTRAL_POSITION),
                b"ToPdf ",
                _table(CENTRAL_POSITION, tables),
                b"EndContextDependency ",
            )
        )


def questions(
    statistics: Mapping[tuple[Window, int], Statistics], phones: Sequence[int]
) -> list[tuple[int, ...]]:
    """Return sets of similar phones: all groups on the way of clustering them bottom up by likelihood.

    Kaldi makes its questions from data likewise (``cluster-phones``).

    Args:
        statistics: of triphone states.
        phones: to be clustered.
    """
    clusters: list[tuple[tuple[int, ...], Statistics]] = []
    for phone in phones:
        parts = [s for (window, _), s in statistics.items() if window[1] == phone]
        if parts:
            clusters.append(((phone,), Statistics.sum(parts)))
    found = [group for group, _ in clusters]
    while len(clusters) > 2:
        costs = [
            (a.log_likelihood() + b.log_likelihood() - (a + b).log_likelihood(), i, j)
            for i, (_, a) in enumerate(clusters)
            for j, (_, b) in enumerate(clusters[:i])
        ]
        _, i, j = min(costs)
        merged = (tuple(sorted(clusters[i][0] + clusters[j][0])), clusters[i][1] + clusters[j][1])
        clusters = [c for k, c in enumerate(clusters) if k not in (i, j)] + [merged]
        found.append(merged[0])
    return found


def build_tree(
    statistics: Mapping[tuple[Window, int], Statistics],
    states: Mapping[int, int],
    unsplit: Sequence[int],
    leaves: int,
    least_gain: float = 100.0,
    least_count: float = 50.0,
) -> Tree:
    """Build a tree.

    Args:
        statistics: of ``(window, state)``.
        states: number of states of each phone.
        unsplit: phones whose states depend on no neighbour, such as silence.
        leaves: how many there are at most.
        least_gain: of log likelihood, that a split must bring.
        least_count: frames that both sides of a split must have.
    """
    asked = questions(statistics, [phone for phone in states if phone not in unsplit])
    roots: dict[tuple[int, int], Node] = {}
    everything = Statistics.sum(list(statistics.values()))
    nothing = Statistics(0.0, everything.total * 0, everything.squares * 0)
    open_nodes: list[tuple[float, int, Node, _Split]] = []
    data: dict[int, list[tuple[Window, Statistics]]] = {}
    count = 0

    def consider(node: Node, items: list[tuple[Window, Statistics]]) -> None:
        data[id(node)] = items
        split = _best_split(items, asked, least_count)
        if split is not None and split.gain > least_gain:
            heapq.heappush(open_nodes, (-split.gain, len(data), node, split))

    for phone, number in states.items():
        for state in range(number):
            root = roots[phone, state] = Node()
            count += 1
            items = [(w, s) for (w, k), s in statistics.items() if w[1] == phone and k == state]
            if phone in unsplit:
                data[id(root)] = items
            else:
                consider(root, items)
    while open_nodes and count < leaves:
        _, _, node, split = heapq.heappop(open_nodes)
        node.position, node.phones = split.position, split.phones
        node.yes, node.no = Node(), Node()
        for child, answer in ((node.yes, True), (node.no, False)):
            items = [
                (w, s) for w, s in data[id(node)] if (w[split.position] in split.phones) == answer
            ]
            consider(child, items)
        count += 1
    tree = Tree(roots)
    for root in roots.values():
        _number_leaves(root, tree, data, nothing)
    return tree


@dataclass(frozen=True)
class _Split:
    gain: float
    position: int
    phones: tuple[int, ...]


def _best_split(
    items: list[tuple[Window, Statistics]], asked: list[tuple[int, ...]], least_count: float
) -> _Split | None:
    if not items:
        return None
    whole = Statistics.sum([s for _, s in items])
    before = whole.log_likelihood()
    best: _Split | None = None
    for position in (0, 2):
        by_phone: dict[int, Statistics] = {}
        for window, part in items:
            known = by_phone.get(window[position])
            by_phone[window[position]] = part if known is None else known + part
        for phones in asked:
            parts = [by_phone[phone] for phone in phones if phone in by_phone]
            if not parts or len(parts) == len(by_phone):
                continue
            yes = Statistics.sum(parts)
            no = Statistics(
                whole.count - yes.count, whole.total - yes.total, whole.squares - yes.squares
            )
            if min(yes.count, no.count) < least_count:
                continue
            gain = yes.log_likelihood() + no.log_likelihood() - before
            if best is None or gain > best.gain:
                best = _Split(gain, position, phones)
    return best


def _number_leaves(
    node: Node,
    tree: Tree,
    data: Mapping[int, list[tuple[Window, Statistics]]],
    nothing: Statistics,
) -> None:
    if node.yes is not None and node.no is not None:
        _number_leaves(node.yes, tree, data, nothing)
        _number_leaves(node.no, tree, data, nothing)
        return
    node.pdf = len(tree.statistics)
    parts = [s for _, s in data[id(node)]]
    tree.statistics.append(Statistics.sum(parts) if parts else nothing)


def _int(value: int) -> bytes:
    return b"\x04" + struct.pack("<i", value)


def _table(key: int, entries: Mapping[int, bytes]) -> bytes:
    size = max(entries) + 1
    # The size is unsigned, which Kaldi marks by a negative width.
    head = b"TE " + _int(key) + b"\xfc" + struct.pack("<I", size) + b"( "
    return head + b"".join(entries.get(i, b"NULL ") for i in range(size)) + b") "


def _node_bytes(node: Node) -> bytes:
    if node.yes is None or node.no is None:
        return b"CE " + _int(node.pdf)
    phones = sorted(node.phones)
    numbers = b"\x04" + struct.pack(f"<i{len(phones)}i", len(phones), *phones)
    children = _node_bytes(node.yes) + _node_bytes(node.no)
    return b"SE " + _int(node.position) + numbers + b"{ " + children + b"} "
