"""Where documents come from: the source contract, the framework around it, and one module or package per system."""
