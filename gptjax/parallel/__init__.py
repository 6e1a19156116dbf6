"""One model on many devices, and one run of many processes.

Devices:

mesh.py                 devices on named axes
sharding.py             the one table that says how parameters are split over these axes
placement.py            how a mesh divides the work of a model, with a file for each way:
                        sequence.py, vocabulary.py (tensor), context.py and ring.py, expert.py, pipeline.py
accumulation.py         when the gradients of micro-batches are summed
nested.py               one `shard_map` inside another; kernel.py: an attention kernel in one
compilation.py          options of the compiler for a platform
compiled.py, traffic.py what a compiled program computes, and what it sends

Processes:

members.py              the functions with which a command joins the others and ends with them (start here)
meeting.py              the address where they meet
member.py, hub.py       one process, and the server of all in process 0; relay.py: between JAX's client and service;
                        aborts.py: a C++ thread that cannot handle the loss of a process does not hide the reason
agreement.py            what must be the same in all
distributed.py          batches to the devices of several processes, and arrays back
"""
