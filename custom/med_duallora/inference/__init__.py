"""What a trained model is used for at a site: predictions of new scans, with what speaks against trusting them."""
