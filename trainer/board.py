"""`python -m trainer.board FOLDER PORT`: TensorBoard on this machine's own address, for as long as boot lives."""

import sys
from collections.abc import Sequence

from trainwright.spec.exits import guarded
from trainwright.store.process import die_with_boot

HOST = "127.0.0.1"


def main(argv: Sequence[str] | None = None) -> int:
    """Serve a folder of events until killed; return TensorBoard's own exit code when it cannot."""
    from tensorboard import default, program

    die_with_boot()
    folder, port = sys.argv[1:] if argv is None else argv
    board = program.TensorBoard(default.get_plugins())
    board.configure(("tensorboard", "--logdir", folder, "--host", HOST, "--port", port, "--reload_interval", "10"))
    return int(board.main())


if __name__ == "__main__":
    sys.exit(guarded("board", main))
