"""kill -9 of the gateway: the parent brings it back on the same port, the workers go on, the journal
bounds what was billed, no slot leaks. SLUICE_KILLS (default 20) sets the rounds.
"""
import os
import random
import signal
import threading

import sluice_process
from http_client import Closed, Connection, Stream
from sluice_process import ServerTest, canned_model, config_with, wait_until

KILLS = int(os.environ.get("SLUICE_KILLS", "20"))
SEED = int(os.environ.get("TEST_SEED", "1"))
NUM_STREAMS = 8
# Tokens of one write of one stream: with a step every 2 ms even a gateway that waits a fifth of a
# second for a CPU has no more of them.
UNSENT_MAX = 100


class GatewayDeath(ServerTest):
    config = config_with(models=[canned_model(canned_step_us=2000)],
                         supervision={"restart_delay": "5ms", "restart_delay_max": "20ms"})

    def stream_until_the_end(self, i, received, started):
        """Notes the completion tokens that the last complete event told."""
        body = {"model": "canned", "prompt": f"river {i}", "max_tokens": 2000, "seed": i,
                "ignore_eos": True,
                "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
        stream = Stream(self.server.port, "/v1/completions", body)
        try:
            for event in stream.events():
                received[i] = event["usage"]["completion_tokens"]
                started[i].set()
        except Closed:
            pass
        finally:
            stream.close()
            started[i].set()

    def kill_gateway(self):
        gateway, num_ready = self.server.gateway_pid(), self.server.num_gateways_ready
        os.kill(gateway, signal.SIGKILL)
        return gateway, num_ready

    def wait_for_the_next(self, gateway, num_ready):
        # The parent says when. Polling the port instead could connect it to itself: a free port of
        # the ephemeral range may be chosen as the source of the connection to it.
        wait_until(lambda: self.server.num_gateways_ready > num_ready, "the gateway to be back")
        wait_until(lambda: self.server.request("GET", "/ready").status == 200, "a ready gateway")
        self.assertNotEqual(self.server.gateway_pid(), gateway)

    def test_killed_again_and_again(self):
        rng = random.Random(SEED)
        workers = self.server.worker_pids()
        for number in range(KILLS):
            with self.subTest(number=number):
                self.kill_once(rng)
                self.assertEqual(self.server.worker_pids(), workers)
        answer = self.server.post("/v1/completions", {"model": "canned", "prompt": "a", "max_tokens": 3,
                                                      "ignore_eos": True})
        self.assertEqual(answer.json()["usage"]["completion_tokens"], 3)

    def kill_once(self, rng):
        before = self.server.journal()
        self.assertEqual(before.live, 0)
        received = [0] * NUM_STREAMS
        started = [threading.Event() for _ in range(NUM_STREAMS)]
        threads = [threading.Thread(target=self.stream_until_the_end, args=(i, received, started))
                   for i in range(NUM_STREAMS)]
        for thread in threads:
            thread.start()
        # The last one to begin is the moment; then a random number of its tokens later.
        for event in started:
            event.wait()
        target = max(received) + rng.randint(0, 60)
        wait_until(lambda: max(received) >= target, "some tokens")
        killed = self.kill_gateway()
        for thread in threads:
            thread.join()
        self.wait_for_the_next(*killed)
        after = self.server.journal()
        self.assertEqual(after.live, 0, "slots left live")
        billed = after.accepted - before.accepted
        self.assertGreaterEqual(billed, sum(received), "received more than was billed")
        self.assertLessEqual(billed, sum(received) + NUM_STREAMS * UNSENT_MAX)
        self.assertEqual(after.requests - before.requests, NUM_STREAMS)

    def test_connections_fail_and_are_not_left_hanging(self):
        with Connection(self.server.port) as idle:
            killed = self.kill_gateway()
            self.assertTrue(idle.is_closed_by_server())
        self.wait_for_the_next(*killed)


if __name__ == "__main__":
    sluice_process.run_main()
