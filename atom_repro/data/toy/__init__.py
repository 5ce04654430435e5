"""The generated data set: clips of drawn scenes, their captions, requests and true answers."""
