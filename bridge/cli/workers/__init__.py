"""Several processes that serve the same ports, and the one that supervises them.

supervisor   starts workers, puts others in the place of those that die, and hands signals on
hub          keeps what workers have counted, and answers for all of them
child        one worker, as the supervisor has it
member       the supervisor, as a worker has it
worker       the process of a worker: core and bridge, as `twinspan serve` runs them by itself
messages     what the two say to each other, over a pair of sockets that ends with either of them
ports        the ports, which the supervisor holds from its start to its end
"""
