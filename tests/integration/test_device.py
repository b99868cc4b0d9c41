"""A model that asks for a device which is not there: the worker says so in words that help, and the
start ends with its error."""
import os
import pathlib
import shutil
import tempfile
import unittest

import sluice_process
from sluice_process import BIN, SOURCE, SluiceServer, config_with, run_main

MODULE = "sluice_cuda.so"


def cuda_config():
    return config_with(models=[{
        "name": "tiny", "kind": "llama", "device": "cuda", "num_blocks": 64, "context_tokens": 512,
        "path": str(SOURCE / "tests" / "golden" / "tiny_llama" / "bf16_sharded"),
        "tokenizer": str(SOURCE / "models" / "canned" / "tokenizer.model")}])


class ServerFrom(SluiceServer):
    """The programs of another folder."""

    def __init__(self, folder, config):
        super().__init__(config, environment={"SLUICE_DATA_DIR": str(SOURCE / "models")})
        self.folder = folder

    def command(self):
        return [str(self.folder / "sluice"), *super().command()[1:]]


class Device(unittest.TestCase):
    def words_of_a_refused_start(self, folder):
        server = ServerFrom(folder, cuda_config()).spawn()
        try:
            code = server.wait(60)
            sluice_process.wait_until(lambda: server.lines.qsize() > 0, "the end of the output")
            output = "\n".join(server.log)
            self.assertEqual(code, 1, output)
            self.assertIn("worker_failed", output)
            self.assertNotIn("sluice ready", output)
            return output
        finally:
            server.kill()
            server.close()

    def test_a_worker_without_a_device_says_so_and_ends(self):
        if not (BIN / MODULE).exists():
            self.skipTest("this build found no CUDA toolkit")
        if os.path.exists("/dev/nvidiactl"):
            self.skipTest("there is a CUDA device")
        self.assertIn("device: cuda: no device to be had: ", self.words_of_a_refused_start(BIN))

    def test_a_build_without_cuda_says_what_it_lacks(self):
        with tempfile.TemporaryDirectory(prefix="sluice-bin-") as folder:
            folder = pathlib.Path(folder)
            for program in ("sluice", "sluice-worker"):
                shutil.copy2(BIN / program, folder / program)
            output = self.words_of_a_refused_start(folder)
            self.assertIn(str(folder / MODULE), output)
            self.assertIn("a build that finds the CUDA toolkit makes it", output)


if __name__ == "__main__":
    run_main()
