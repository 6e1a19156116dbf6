"""What is done to every shard, one stage a file: functions of a task that write into the folder they are given."""
