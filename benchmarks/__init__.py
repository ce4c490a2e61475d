"""What the relay can do, measured from outside: real processes, real sockets, real disks. No package imports this."""
