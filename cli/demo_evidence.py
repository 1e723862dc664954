def tell_evidence(story, world):
    pass
