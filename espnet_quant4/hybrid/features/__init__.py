"""Features of a hybrid system, on disk: MFCC of the GMM, filterbanks of the network."""
