"""What the processes of a command do not import, though libraries would."""

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _WithoutPandas(MetaPathFinder, Loader):
    """Finds pandas, for libraries that only look whether it is there, and fails to import it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname == "pandas" else None

    def exec_module(self, module: ModuleType) -> None:
        raise ModuleNotFoundError("pandas is left out", name=module.__name__)


def leave_out_pandas() -> None:
    """Let pyarrow do without pandas, which it would import, for a second in every process, to hand out an array.

    Nothing here uses it. A process that has imported it already keeps it.
    """
    if not any(isinstance(finder, _WithoutPandas) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WithoutPandas())
