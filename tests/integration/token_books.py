"""The names of the three counters on the metrics page, and the check that all books agree."""

ACCEPTED = "sluice_tokens_accepted_total"
PROMPT = "vllm:prompt_tokens_total"
GENERATED = "sluice_tokens_generated_total"
DISCARDED = "sluice_tokens_discarded_total"


def check_books(test, server, completion_tokens, prompt_tokens):
    """usage = journal = metrics, and generated - accepted = discarded."""
    from sluice_process import wait_until
    wait_until(lambda: server.journal().live == 0, "no live slot in the journal")
    # Tokens of cancelled sequences are still drained for a step or two.
    wait_until(lambda: server.metric(GENERATED) == server.metric(ACCEPTED) + server.metric(DISCARDED),
               "generated = accepted + discarded")
    journal = server.journal()
    test.assertEqual(journal.accepted, completion_tokens, "journal against usage")
    test.assertEqual(journal.prompt, prompt_tokens, "journal against usage")
    test.assertEqual(server.metric(ACCEPTED), completion_tokens, "metrics against usage")
    test.assertEqual(server.metric(PROMPT), prompt_tokens, "metrics against usage")
