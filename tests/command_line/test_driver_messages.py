"""What the plug-in for NVIDIA GPUs writes without a driver is left out, and everything else stays."""

import os
import subprocess
import sys
from pathlib import Path

from gptjax.command_line.driver_messages import without_driver_messages

REPOSITORY = Path(__file__).parents[2]
MESSAGE = "I0000 cudart_stub.cc:31] Could not find cuda drivers on your machine\n"


def test_only_the_messages_about_the_driver_are_left_out(capfd):
    with without_driver_messages():
        os.write(2, f"{MESSAGE}E0000 something else\n".encode())
        assert not capfd.readouterr().err
    assert capfd.readouterr().err == "E0000 something else\n"


def test_importing_jax_leaves_them_out_where_the_plug_in_is_installed(tmp_path):
    """With a JAX that writes such messages when it is imported, once for itself and once for a part."""
    write = f"import os\nos.write(2, {MESSAGE.encode()!r} + b'E0000 else\\n')\n"
    code = "from gptjax.command_line.driver_messages import import_jax_without_them\n"
    code += "import_jax_without_them(); import jax.part; import jax"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"}

    def errors():
        return subprocess.run(
            [sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True, check=True
        ).stderr

    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text(write)
    (tmp_path / "jax" / "part.py").write_text("")
    assert errors() == f"{MESSAGE}E0000 else\n"
    (tmp_path / "jax_cuda12_plugin.py").write_text("")
    assert errors() == "E0000 else\n"
