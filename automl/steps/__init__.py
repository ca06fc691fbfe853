"""Steps of the pipeline, a module each; command line, estimators and Airflow call these.

Importing this package is cheap. The steps exchange ids and short documents, never data, and each
can be run twice with the same result.
"""
