"""Lightning's Trainer, adapted to training, scanning and cleansing."""
