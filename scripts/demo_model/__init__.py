"""Training, measurement and export of the small embedded model.

One topic per file: `text` (reading and tokenizing), `needles` (facts and questions), `samples`
(training rows), `network` (the Llama and its first weights), `geometry` (the training forward
pass), `training` (the loop), `measure` (figures for the card), `export` and `card` (the artefacts).
"""
