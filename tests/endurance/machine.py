"""A stage store through all that may happen to it, in any order: a machine of states for hypothesis.

Whatever happened, a run ends in the undisturbed tables or in one sentence, trains nothing that is sound, and waits for
nobody for ever; what was damaged is named; what a study needs is not thrown away.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from conftest_search import make_study
from endurance import command
from endurance.bench import EPOCHS, IN_PARTS, STUDY, TIMES
from endurance.faults import SHORT, STALE, Killed, Schedule, Shaky, harmless
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from dermsearch.errors import UserError
from dermsearch.results.tables import schema as tables
from dermsearch.storage.files import StoreLost
from dermsearch.storage.stages import PartialStage, StageStore
from dermsearch.study.config import Study
from dermsearch.upkeep.upkeep import put_away, unneeded
from dermsearch.upkeep.used import used_by

SHORTER = make_study(
    data={"cases": 40, "size": 32},
    encoder={"name": "test_resnet"},
    curriculum={"tasks": {"relative_location": {}}, "length": [1, 1]},
    downstream={"knn": {}},
    objective={"protocol": "knn"},
)
SEEDS = STUDY.model_copy(update={"search": STUDY.search.model_copy(update={"seeds": (0, 1)})})
STUDIES = {"shorter": SHORTER, "study": STUDY, "seeds": SEEDS, "in parts": IN_PARTS}
NUMBERS = (errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EACCES)
DAMAGE = ("flip", "cut", "empty", "swap", "folder", "loop", "link", "gone", "unreadable")
GROWN = "grown"  # results that become larger
FOUND = ("flip", "cut", "empty")  # what `verify` must name
DONE: Counter[str] = Counter()  # what the machine has done so far
names = st.sampled_from(sorted(STUDIES))
moment = st.one_of(st.integers(0, 25), st.integers(0, 90))


def placed(name: str, store: str) -> Study:
    """The study on that store."""
    study = STUDIES[name]
    return study.model_copy(update={"compute": study.compute.model_copy(update={"store": store})})


def told(out: Path) -> dict[str, list[dict[str, Any]]]:
    """All in a study's tables that does not tell the time."""
    found = {}
    for name in tables.SCHEMAS:
        if name not in tables.OPENED:
            rows = tables.read(out / "tables" / f"{name}.arrow").to_pylist()
            found[name] = [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
    return found


def undisturbed(folder: Path) -> dict[str, Any]:
    """The tables of each study, from a store of its own."""
    found = {}
    for name in STUDIES:
        code, said = command.run(placed(name, str(folder / name / "store")), folder / name / "out")
        assert code == 0, said
        found[name] = told(folder / name / "out")
    return found


class Endured(RuleBasedStateMachine):
    """A store, some studies on it, and misfortune."""

    whole: dict[str, Any]  # the undisturbed tables, by study
    remote = False

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="endured-"))
        self.store = self.folder / "store"
        self.where = f"s3://{str(self.store).lstrip('/')}" if self.remote else str(self.store)
        self.unreadable: set[str] = set()
        self.touched: set[str] = set()
        self.complete: set[str] = set()  # studies that came through, since when nothing was damaged
        self.damaged = False  # at rest, since the last run
        Shaky.seen.clear()

    def teardown(self) -> None:
        try:
            self.unreadable.clear()
            for name in sorted(self.touched):
                self.comes_through(name)
        finally:
            Shaky.strike = staticmethod(harmless)
            shutil.rmtree(self.folder, ignore_errors=True)

    @initialize(name=names)
    def begun(self, name: str) -> None:
        """There is something to damage."""
        self.comes_through(name)

    # Runs --------------------------------------------------------------------------------------------------

    @rule(name=names)
    def run(self, name: str) -> None:
        """In peace."""
        self.comes_through(name)

    @rule(name=names, at=moment)
    def killed(self, name: str, at: int) -> None:
        """Dead at any operation."""
        self.struck(name, Schedule(self.folder, at, "kill"))

    @rule(name=names, at=moment, number=st.sampled_from(NUMBERS), lasts=st.booleans())
    def refused(self, name: str, at: int, number: int, lasts: bool) -> None:
        """The disk says no, once or from then on."""
        self.struck(name, Schedule(self.store, at, number, lasts))

    @rule(name=names, at=moment, fault=st.sampled_from([SHORT, STALE]), lasts=st.booleans())
    def deceived(self, name: str, at: int, fault: str, lasts: bool) -> None:
        """The disk says what is not so."""
        self.struck(name, Schedule(self.store, at % 5 if fault == STALE else at, fault, lasts))

    @rule(name=names, other=names, at=moment)
    def shared(self, name: str, other: str, at: int) -> None:
        """Stopped at any operation, while another run comes and does not wait for ever; then it goes on."""

        def meanwhile() -> None:
            Shaky.strike = staticmethod(self.base)
            self.comes_through(other, f"{other}-elsewhere")

        self.struck(name, Schedule(self.folder, at, meanwhile))

    @precondition(lambda self: not self.unreadable)
    @rule(at=st.one_of(st.none(), moment))
    def extended(self, at: int | None) -> None:
        """More seeds of a study, into the folder that holds fewer, perhaps killed on the way; and not back again."""
        out = self.folder / "results" / GROWN
        shutil.rmtree(out, ignore_errors=True)
        self.comes_through("study", GROWN)
        if at is not None:
            self.struck("seeds", Schedule(self.folder, at, "kill"), GROWN)
        self.comes_through("seeds", GROWN)
        DONE["extended"] += 1
        code, said = self.started("study", GROWN)
        assert code == 2 and "search.seeds" in said, said
        assert told(out) == self.whole["seeds"], "a smaller study took the place of a larger one"

    def base(self, what: str, path: str) -> None:
        """What befalls every command: files of another user."""
        if what == "read" and any(path == each or path.startswith(f"{each}/") for each in self.unreadable):
            raise PermissionError(errno.EACCES, "Permission denied", path)

    def started(self, name: str, out: str = "") -> tuple[int, str]:
        """The command; nothing sound may be trained by it."""
        DONE["runs"] += 1
        self.touched.add(name)
        return command.run(placed(name, self.where), self.folder / "results" / (out or name))

    def struck(self, name: str, schedule: Schedule, out: str = "") -> None:
        """Run it, with that to come."""

        def strike(what: str, path: str) -> str | None:
            self.base(what, path)
            return schedule(what, path)

        Shaky.strike = staticmethod(strike)
        sound, before = self.sound(), len(EPOCHS)
        try:
            code, said = self.started(name, out)
        except Killed:
            code, said = -9, ""
        finally:
            Shaky.strike = staticmethod(self.base)
        DONE[f"{schedule.fault if not callable(schedule.fault) else 'shared'} fell"] += bool(schedule.fell)
        honest = schedule.fault != SHORT and schedule.fault != errno.EIO
        if honest and not callable(schedule.fault):
            self.not_again(sound, EPOCHS[before:])
        self.ended(name, code, said, out)
        if code == 2:
            assert schedule.fell or self.unreadable or self.damaged, said
        if self.remote and isinstance(schedule.fault, int) and not schedule.lasts and not self.damaged:
            assert code == 0 or "/preparing/" in said, f"a remote store is waited for, but when it is opened: {said}"

    def comes_through(self, name: str, out: str = "") -> None:
        """Run it in peace: it may stop once, when it finds what cannot be loaded, or does not get to read something."""
        Shaky.strike = staticmethod(self.base)
        for attempt in range(6):
            sound, before = self.sound(), len(EPOCHS)
            code, said = self.started(name, out)
            self.not_again(sound, EPOCHS[before:])
            self.ended(name, code, said, out)
            if name in self.complete and not out:
                assert len(EPOCHS) == before, "what a finished study needs was thrown away"
            if code == 0:
                self.complete |= set() if out else {name}
                return
            if self.unreadable:
                return
            if self.obeyed(said, self.folder / "results" / (out or name)):
                continue
            assert self.damaged or attempt == 0, f"it does not come through: {said}"
        raise AssertionError(f"it does not come through: {said}")

    def obeyed(self, said: str, out: Path) -> bool:
        """Results that are damaged or in the way are the user's to take away."""
        last = (said.strip().splitlines() or [""])[-1]
        if str(out) not in last or not os.path.lexists(out):
            return False
        shutil.rmtree(out)
        return True

    def ended(self, name: str, code: int, said: str, out: str = "") -> None:
        """Exit codes as documented, one sentence where there is a mistake, and no wrong score ever."""
        assert code in (0, 2, -9), (code, said)
        assert "Traceback" not in said, said
        if code == 2:
            last = said.strip().splitlines()[-1]
            assert last.startswith("dermsearch: ") and len(last) < 1000, said
        if code == 0:
            assert told(self.folder / "results" / (out or name)) == self.whole[name], f"other tables: {said}"

    def sound(self) -> dict[str, int]:
        """What need not be trained again: stages (segments) -> their epochs, states of those under way -> theirs."""
        if not (self.store / "stages").is_dir():
            return {}
        before, Shaky.strike = Shaky.strike, staticmethod(self.base)
        found: dict[str, int] = {}
        try:
            store = StageStore(self.where, create=False)
            store.waits = ()
            judged = self.judged(store)  # a segment without what it is compared by is made again
            for kind, read in (("segments", store.segment), ("stages", store.manifest)):
                for key in store.keys(kind):
                    try:
                        about = read(key)
                        if about is not None and (key in judged if kind == "segments" else store.artifact(key)):
                            found[key] = 99
                    except StoreLost:
                        continue
            for key in store.listed("partial"):
                try:
                    data = store.get(f"partial/{key}/state.pt")
                    partial = PartialStage(store, key)
                    state = partial.load() if data is not None else None
                    if state is not None:
                        found.setdefault(key, len(json.loads(state["history"])))
                except (StoreLost, FileNotFoundError):
                    continue
        except UserError:
            return {}
        finally:
            Shaky.strike = staticmethod(before)
        return found

    @staticmethod
    def judged(store: StageStore) -> set[str]:
        """The stages and segments that have a judgement."""
        found = set()
        for name in store.listed("scores"):
            try:
                found.add((store.judgement(name.removesuffix(".json")) or {}).get("stage", ""))
            except StoreLost:
                continue
        return found

    @staticmethod
    def not_again(sound: dict[str, int], trained: list[tuple[str, str, int]]) -> None:
        """Nothing sound is trained twice."""
        again = [(key, epoch) for _, key, epoch in trained if epoch < sound.get(key, 0)]
        assert not again, f"trained twice: {again}"

    # The store at rest -------------------------------------------------------------------------------------

    def files(self) -> list[Path]:
        """What can be damaged: all that the store and the results hold."""
        found = [p for p in sorted(self.folder.rglob("*")) if p.is_file() and not p.is_symlink()]
        return [p for p in found if "damaged" not in p.parts and "trash" not in p.parts and "elsewhere" not in p.parts]

    @precondition(lambda self: self.store.is_dir())
    @rule(which=st.integers(0, 10_000), how=st.sampled_from(DAMAGE), bit=st.integers(0, 10**9))
    def damage(self, which: int, how: str, bit: int) -> None:
        """Something becomes of a file, or of the folder that it is in."""
        every = self.files()
        if not every:
            return
        path = every[which % len(every)]
        if self.remote and how in ("folder", "loop", "link"):  # there are none in an object store
            return
        if how == "swap" and not self.swap(path, bit):
            return
        DONE[how] += 1
        self.damaged = True
        self.complete.clear()
        if how == "swap":  # what lies there now may be a loop, as the other one was
            return
        data = path.read_bytes()
        if how == "flip" and data:
            flipped = bytearray(data)
            flipped[bit % len(data)] ^= 1 << bit % 8
            path.write_bytes(flipped)
        elif how in ("cut", "empty"):
            path.write_bytes(data[: bit % len(data)] if how == "cut" and data else b"")
        elif how == "unreadable":
            self.unreadable.add(str(path))
        elif how in ("folder", "loop", "link", "gone"):
            self.replace(path, how)
        if how in FOUND and path.read_bytes() != data:
            self.is_named(path)

    def replace(self, path: Path, how: str) -> None:
        """Something else stands where the file stood."""
        if how == "link":
            elsewhere = self.folder / "elsewhere" / str(len(list((self.folder / "elsewhere").glob("*"))))
            elsewhere.parent.mkdir(exist_ok=True)
            path.rename(elsewhere)
            path.symlink_to(elsewhere)
            return
        path.unlink()
        if how == "folder":
            path.mkdir()
        elif how == "loop":
            path.symlink_to(path)

    def swap(self, path: Path, which: int) -> bool:
        """Another of its kind lies there, with a checksum that is right."""
        within = path.relative_to(self.folder).parts
        if within[0] != "store" or within[1] not in ("stages", "segments", "scores", "partial"):
            return False
        mine = path if within[1] == "scores" else path.parent
        others = [p for p in sorted(mine.parent.iterdir()) if p != mine and p.suffix == mine.suffix]
        others = [p for p in others if not p.is_symlink() and p.is_dir() == mine.is_dir()]
        if not others:
            return False
        other = others[which % len(others)]
        if mine.is_dir():
            shutil.rmtree(mine)
            shutil.copytree(other, mine, symlinks=True)
        else:
            shutil.copy(other, mine)
        return True

    def is_named(self, path: Path) -> None:
        """`verify` says so, of what counts."""
        within = path.relative_to(self.folder).parts
        whole = len(within) == 4 and (path.parent / "manifest.json").is_file()
        if within[0] != "store" or not ((within[1] in ("stages", "segments") and whole) or within[1] == "scores"):
            return
        Shaky.strike = staticmethod(harmless)
        code, said = command.verify(self.where)
        if path.suffix == ".arrow" or str(path.parent) in str(list(self.unreadable)):
            return
        assert code == 1 and "/".join(within[1:3]) in said, f"{path} is damaged: {code}, {said}"

    @rule()
    def mended_rights(self) -> None:
        """What could not be read can be."""
        self.unreadable.clear()

    @precondition(lambda self: (self.store / "stages").is_dir())
    @rule(repair=st.booleans())
    def verify(self, repair: bool) -> None:
        """What is named is moved away, and nothing is named then, but for what links hold."""
        Shaky.strike = staticmethod(self.base)
        DONE["verify"] += 1
        code, said = command.verify(self.where, repair)
        assert code in (0, 1, 2) and "Traceback" not in said, said
        if code == 2:
            assert self.unreadable or self.remote, said
        if repair and code == 0:
            again, told = command.verify(self.where)
            assert again == 0 or self.unreadable, told

    @precondition(lambda self: (self.store / "stages").is_dir())
    @rule(studies=st.booleans())
    def gc(self, studies: bool) -> None:
        """A month later."""
        Shaky.strike = staticmethod(self.base)
        DONE["gc"] += 1
        outs = [self.folder / "results" / name for name in sorted(STUDIES) if (self.folder / "results" / name).is_dir()]
        try:
            used = used_by(outs) if studies and outs else None
            store = StageStore(self.where, create=False)
            store.waits = ()
            put_away(store, unneeded(store, used, 24, 4e9))
        except UserError as error:
            assert "\n" not in str(error)
        if studies:  # others may have needed it
            self.complete &= {out.name for out in outs}
