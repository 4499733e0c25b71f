"""Random programs of calls, run through `parallel` and compared with what a plain loop says has to come out."""
