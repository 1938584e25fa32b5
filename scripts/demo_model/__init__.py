"""Everything that trains, measures and exports the small embedded model.

One room per file: `text` (reading and tokenizing), `needles` (facts and questions), `samples`
(training rows), `network` (the Llama and its first weights), `geometry` (the training forward
pass), `training` (the loop), `measure` (figures for the card), `export` and `card` (the artefacts).
"""
