"""Which sample comes when: orders of one dataset, mixtures of several, datasets that grow while they are trained on."""
