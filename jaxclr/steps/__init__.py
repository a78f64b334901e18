"""What changes while training and how a step changes it: the part of training that runs on devices."""
