"""Conversational telephone speech in English: Switchboard-1, Fisher, and the Hub5 evaluations.

lhotse reads the corpora; what it leaves open stands here: the check of what is on the disks, true
speakers, the texts of the published recipes, the reference of the evaluations, the split into
training and development part, and Kaldi-style data folders without pipes.
"""
