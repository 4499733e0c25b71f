"""The scheduler in simulated worlds, each made from a seed: `python -m tests.simulation --help`.

- `facts`, `policies`: what tasks are, what becomes of them, and sizes of batches that never say the same twice;
- `books`, `checks`: the books that a world keeps of its own, and what has to hold after every event;
- `performing`, `world`: what becomes of the scheduler's actions, and what may happen;
- `whims`: any legal order of events;
- `clock`, `times`, `conditions`, `workers`, `driver`: a cluster with a virtual clock;
- `plain`: calls that nothing disturbs, which have to end about as soon as with a greedy schedule;
- `seeds`, `many`: what a seed means, and running many of them;
- `trace`, `report`: what happened in one world, and what the engine itself costs as workers grow.
"""
